"""Evaluate: how good is an SAE on the blocks that training kept for validation?

    kubesae evaluate experiment.yaml

What can be said of reconstructions and features comes from one read of the stored activations; the loss that the model
itself recovers from running the whole model with the SAE spliced in, where it is at hand and fits. Legend: N rows,
D d_model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from kubesae.compare import write_comparison
from kubesae.errors import ConfigError, DamagedError, HubError, MissingError
from kubesae.evaluate.features import density, similarity
from kubesae.evaluate.page import page
from kubesae.evaluate.report import FORMAT, CrossEntropy, Evaluation, RowL0, Shrinkage
from kubesae.evaluate.splice import Context, measure
from kubesae.evaluate.spread import quantiles, whole_numbers
from kubesae.evaluate.sums import RowSums, l0_of
from kubesae.experiment import Sae, parse_json_object, validate
from kubesae.ledger import keys, require_identity
from kubesae.model import resolve_model
from kubesae.model.truncate import find_layers
from kubesae.model.whole import load_language_model
from kubesae.sae.kernels import decode
from kubesae.sae.metrics import Covariance, Sums
from kubesae.sae.named import open_named
from kubesae.shards import read_block, read_index
from kubesae.shards.split import split_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.sae.inference import Sae as TrainedSae
    from kubesae.sae.named import NamedSae
    from kubesae.shards import BlockData, BlockRef
    from kubesae.shards.split import Split
    from kubesae.store import Store

# Rows encoded at a time: bounds the dense activations of one product.
SLICE = 4096


@dataclass
class _Measured:
    """Sums over the validation rows, and the contexts that the model is run on."""

    unflagged: Sums
    flagged: Sums
    rows: RowSums
    covariance: Covariance
    contexts: list[Context] = field(default_factory=list)


def evaluate(experiment: Experiment, data: Store, output: Store, name: str | None, contexts: int) -> Evaluation:
    """Evaluate an SAE and write `sae/<name>/evaluation.json`, or return what is there if it says as much.

    The page for people, `evaluation.html`, is written before it. Either way the comparison of all SAEs is made anew.

    Args:
        experiment: says where the model is.
        data: store of the activations.
        output: store of the SAEs.
        name: the SAE; None: the only one there is.
        contexts: on how many validation contexts the model is run; 0: on none.

    Raises:
        ConfigError: there is no data, or no such SAE, or it does not fit the data.
        DamagedError: stored bytes are not what they should be.

    """
    identity = require_identity(data)
    named = open_named(output, name, identity)
    stored = _stored(output, identity, named, contexts)
    if stored is not None:
        write_comparison(output)  # a kill may have come before it
        return stored
    split = _split(data, identity, named)
    measured = _read(data, split.validation, named.sae, identity.context, contexts)
    _require_variance(measured, len(split.validation))
    report = _report(named, identity, split, measured)
    try:
        loss = _cross_entropy(experiment, identity, named, measured)
    except (ConfigError, HubError) as error:
        report = report.model_copy(update={"cross_entropy_reason": str(error)})
    else:
        report = report.model_copy(update={"cross_entropy": loss})
    output.put(keys.evaluation_page(named.name), page(report).encode())
    output.put(keys.evaluation(named.name), report.to_json())
    write_comparison(output)
    return report


def _require_variance(measured: _Measured, blocks: int) -> None:
    if measured.unflagged.rows == 0:
        raise DamagedError(
            f"All rows of the {blocks} validation blocks are flagged: there is nothing to evaluate on. "
            "`kubesae ledger` says by layer why rows are flagged."
        )
    if not math.isfinite(measured.unflagged.fvu()):
        raise DamagedError(
            f"All {int(measured.unflagged.rows):,} unflagged rows of the validation blocks are the same: there is no "
            "variance to explain. Collect longer contexts, or other text."
        )


def _stored(output: Store, identity: DataIdentity, named: NamedSae, contexts: int) -> Evaluation | None:
    """Return the stored evaluation of this data and SAE, unless it is of an older format or on fewer contexts."""
    key = keys.evaluation(named.name)
    try:
        document = parse_json_object(output.read(key), output.url_of(key))
    except MissingError:
        return None
    version = document.get("format")
    if isinstance(version, int) and version < FORMAT:
        return None
    found = validate(Evaluation, document, output.url_of(key))
    measured = found.cross_entropy.contexts if found.cross_entropy is not None else 0
    same = (found.identity, found.sae_sha256) == (identity.sha256, named.sha256)
    return found if same and measured >= contexts else None


def _split(data: Store, identity: DataIdentity, named: NamedSae) -> Split:
    """Return the blocks that the SAE's training kept for validation; by the default for one that says nothing of it."""
    training = named.sae.metadata.get("training", {})
    given = {field: training[field] for field in ("validation", "max_tokens") if field in training}
    settings = validate(Sae, given, f"the metadata of SAE {named.name}")
    refs = read_index(data, identity, named.layer)
    return split_blocks(refs, identity.sha256, settings.validation, settings.max_tokens)


def _read(data: Store, refs: Sequence[BlockRef], sae: TrainedSae, context: int, wanted: int) -> _Measured:
    """Read the validation blocks once; keep the first contexts of each, so that `wanted` come from many blocks."""
    sizes = (sae.config.d_model, sae.config.d_sae)
    measured = _Measured(Sums.zero(*sizes), Sums.zero(*sizes), RowSums.zero(*sizes), Covariance.zero(sizes[0]))
    share = -(-wanted // len(refs))
    for ref in refs:
        block = read_block(data, ref)
        x_ND, unflagged_N = torch.from_numpy(block.float32()), torch.from_numpy(block.flags == 0)
        for rows_ND, kept_N in zip(x_ND.split(SLICE), unflagged_N.split(SLICE), strict=True):
            sums, row_sums = _sums(sae, rows_ND[kept_N])
            measured.unflagged += sums
            measured.rows += row_sums
            measured.flagged += _sums(sae, rows_ND[~kept_N])[0]
            measured.covariance.add(rows_ND[kept_N])
        measured.contexts += _contexts(block, context)[:share]
    measured.contexts = measured.contexts[:wanted]
    return measured


def _sums(sae: TrainedSae, x_ND: Tensor) -> tuple[Sums, RowSums]:
    code, features = sae.codes(x_ND), sae.config.d_sae
    x_hat_ND = decode(code, sae.weights.W_dec_FD) + sae.weights.b_dec_D
    sums = Sums.of(x_ND, x_hat_ND, torch.bincount(code.features_N, minlength=features))
    return sums, RowSums.of(x_ND, x_hat_ND, l0_of(code), features)


def _contexts(block: BlockData, context: int) -> list[Context]:
    """The block's contexts that have a next token to predict."""
    starts = range(0, len(block.tokens), context)
    cut = [Context(block.tokens[at : at + context], block.flags[at : at + context]) for at in starts]
    return [context for context in cut if len(context.ids_T) > 1]


def _report(named: NamedSae, identity: DataIdentity, split: Split, measured: _Measured) -> Evaluation:
    unflagged, rows, config = measured.unflagged, measured.rows, named.sae.config
    everything = unflagged + measured.flagged
    with_l0 = rows.with_l0.numpy()
    return Evaluation(
        identity=identity.sha256,
        sae=named.name,
        sae_sha256=named.sha256,
        architecture=config.architecture,
        features=config.d_sae,
        layer=named.layer,
        blocks=len(split.validation),
        rows=int(unflagged.rows),
        flagged_share=int(measured.flagged.rows) / int(everything.rows),
        fvu=unflagged.fvu(),
        fvu_all_rows=everything.fvu(),
        fvu_pca32=measured.covariance.pca_fvu(),
        shrinkage=Shrinkage(
            gamma=rows.shrinkage(),
            gamma_about_mean=rows.shrinkage_about_mean(),
            norm_ratio=rows.norm_ratio(),
            cosine=rows.mean_cosine(),
        ),
        l0=unflagged.l0(),
        l0_rows=RowL0(
            quantiles=quantiles(np.arange(len(with_l0), dtype=float), with_l0), histogram=whole_numbers(with_l0)
        ),
        inactive_share=unflagged.dead_share(),
        dead_share=named.sae.metadata.get("metrics", {}).get("dead_share"),
        density=density(unflagged.active_F.numpy(), int(unflagged.rows)),
        similarity=similarity(named.sae.weights.W_dec_FD),
        cross_entropy=None,
        cross_entropy_reason=None,
    )


def _cross_entropy(
    experiment: Experiment, identity: DataIdentity, named: NamedSae, measured: _Measured
) -> CrossEntropy:
    """Run the model. Raises ConfigError with the reason why it cannot be run."""
    if not measured.contexts:
        raise ConfigError("no contexts were asked for")
    if not identity.attention_across_documents:
        raise ConfigError(
            "the data was collected with attention_across_documents: false, and the whole model is run without its mask"
        )
    source = resolve_model(experiment)
    if source.revision != identity.model_revision:
        raise ConfigError(
            f"{experiment.model!r} here is revision {source.revision[:12]}, but the data was collected from "
            f"{identity.model_revision[:12]}"
        )
    model = load_language_model(source, identity.model_dtype, "Leave it out with --ce-contexts 0.")
    module = find_layers(model, source.num_layers)[named.layer]
    mean_D = (measured.unflagged.x_D / measured.unflagged.rows).float()
    return measure(model, module, measured.contexts, named.sae, mean_D)
