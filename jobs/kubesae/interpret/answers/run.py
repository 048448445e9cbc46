"""Make the answers about every feature, from an interpretation that is there: no second read of the activations.

    kubesae interpret experiment.yaml         # makes both, and finds both the next time

One read of the sparse-code cache, a file at a time; products of the decoder with itself and with the model's head.
Made again when the interpretation is another one. Equal to the byte on the same kind of machine with the same model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.errors import Interrupted, KubesaeError
from kubesae.experiment import public_name
from kubesae.features import read_answers, write_answers
from kubesae.features.answers import ANSWERED, LOGITS
from kubesae.interpret.answers.coactivation import coactivation_table, sample_rows
from kubesae.interpret.answers.labels import labels_table
from kubesae.interpret.answers.logits import logits_table
from kubesae.interpret.answers.neighbours import neighbours_table
from kubesae.interpret.populations import Populations
from kubesae.ledger import Plan, keys
from kubesae.model.head import find_model, load_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from kubesae.experiment import Experiment
    from kubesae.features import Answers, Codes
    from kubesae.interpret.run import Interpreter


def answer(found: Interpreter, experiment: Experiment, say: Callable[[str], None] = lambda _: None) -> Answers:
    """Return the answers about an interpretation, and store them where they are not yet.

    Args:
        found: the interpretation.
        experiment: says where the model is, whose head the logits go through. It is looked for on this machine only;
            without it there are no logits, and the answers say why.
        say: is told what was made.

    Raises:
        DamagedError: the sparse-code cache is not what was written.

    """
    info, name = found.stored.info, found.named.name
    interpretation = info.to_json()
    stored = read_answers(found.output, name, interpretation)
    if stored is not None:
        return stored
    plan, cache = Plan.of(found.identity), found.stored.cache(found.output)
    W_dec_FD = found.named.sae.to("cuda" if torch.cuda.is_available() else "cpu").weights.W_dec_FD
    logits, no_head = _logits(found, experiment, W_dec_FD)
    populations = Populations(found.data, found.manifest, plan, info.features)

    def counted() -> Iterator[Codes]:
        for codes in cache.files():
            populations.add(codes)
            yield codes

    sample = sample_rows(counted(), info.rows, sum(file.entries for file in info.codes), info.features)
    special = found.manifest.tokenizer.special
    tables = {
        "labels": labels_table(found.stored, logits, plan, found.vocabulary, special),
        "logits": logits,
        "neighbours": neighbours_table(W_dec_FD),
        "coactivation": coactivation_table(sample),
        "populations": populations.table(),
    }
    head = "" if no_head else found.identity.model_revision
    answers = write_answers(
        found.output, name, interpretation, tables, head=head, no_head=no_head, coactivation_rows=sample.rows
    )
    say(f"Labelled {info.features:,} features; co-activation over {sample.rows:,} rows")
    if no_head:
        say(f"No logits: {no_head}")
    return answers


def _logits(found: Interpreter, experiment: Experiment, W_dec_FD: torch.Tensor) -> tuple[pa.Table, str]:
    """Return the table of logits, and why it is empty."""
    try:
        head = load_head(find_model(experiment, found.identity.model_revision), W_dec_FD.device)
    except Interrupted:
        raise
    except KubesaeError as error:
        # no path of this machine goes into what is stored
        reason = str(error).replace(experiment.model, public_name(experiment.model)).rstrip(".")
        again = f"With it there, delete {keys.interpretation(found.named.name, ANSWERED)} and interpret again."
        return LOGITS.empty_table(), f"{reason}. {again}"
    return logits_table(head, W_dec_FD, tokens=found.manifest.tokenizer.size), ""
