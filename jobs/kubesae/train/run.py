"""Train SAEs on collected activations, straight from the tars in the store.

    kubesae train experiment.yaml
    torchrun --nproc_per_node=2 -m kubesae.train experiment.yaml
    torchrun --nproc_per_node=4 -m kubesae.train experiment.yaml --feature-shards 2

In order: the data's identity and blocks, the settings (fixed by each SAE's name), and then, for all SAEs that want the
data in the same order, one pass over it: the newest checkpoint of each or a start from a fixed sample, epochs
(`passes`), reports. Started again after a kill it goes on bit for bit; a finished training is only reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kubesae.compare import write_comparison
from kubesae.errors import ConfigError
from kubesae.ledger import Plan, chunk_edges, keys, require_identity
from kubesae.memory import memory_for
from kubesae.shards import read_index
from kubesae.shards.split import split_blocks
from kubesae.train.advice import advise, advise_speed
from kubesae.train.assemble import Ended, Surroundings, about, assemble
from kubesae.train.checkpoint import check_name, claim_name
from kubesae.train.console import Console, silent
from kubesae.train.distributed import join_ranks
from kubesae.train.groups import shared_passes
from kubesae.train.metrics import MetricsLog
from kubesae.train.passes import Limits
from kubesae.train.reader import BlockSource
from kubesae.train.report import report_html
from kubesae.train.settings import config_document, resolve_targets
from kubesae.train.stopping import noticing_signals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from kubesae.experiment import DataIdentity
    from kubesae.experiment import Sae as Settings
    from kubesae.shards import BlockRef
    from kubesae.shards.split import Split
    from kubesae.store import Store
    from kubesae.train.settings import Target


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training ended with.

    Attributes:
        name: of the SAE.
        best: key of the folder of the best checkpoint.
        metrics: of the best epoch, on validation rows.
        report: key of report.html.
        advice: what the numbers say, a sentence each.

    """

    name: str
    best: str
    metrics: dict[str, Any]
    report: str
    advice: list[str]


@dataclass(frozen=True, slots=True)
class TrainResults:
    """What the trainings of a run ended with: those that are complete, and what there is to say of each other one."""

    complete: list[TrainResult]
    diverged: dict[str, str]

    def require_all(self) -> None:
        """See that every SAE is trained.

        Raises:
            ConfigError: some diverged.

        """
        if len(self.diverged) == 1 and not self.complete:
            raise ConfigError(next(iter(self.diverged.values())))
        if self.diverged:
            total = len(self.complete) + len(self.diverged)
            raise ConfigError(
                f"{len(self.diverged)} of {total} SAEs diverged, the others are trained. Give these other settings:\n"
                + "\n".join(f"  {name}: {message}" for name, message in self.diverged.items())
            )


def run_training(data: Store, output: Store, settings: Settings, **options: Any) -> TrainResult:
    """Train one SAE. Arguments and errors as those of `run_trainings`.

    Raises:
        ConfigError: training diverged, too.

    """
    results = run_trainings(data, output, [settings], **options)
    results.require_all()
    return results.complete[0]


def run_trainings(
    data: Store,
    output: Store,
    several: Sequence[Settings],
    *,
    chunk: int,
    console: Console,
    workers: int = 2,
    device: str = "auto",
    feature_shards: int = 1,
    limits: Limits | None = None,
) -> TrainResults:
    """Train SAEs; see the module's docstring.

    Args:
        data: store of tokens and activations, only read.
        output: store of SAEs.
        several: the SAEs and how they are trained.
        chunk: rows of a chunk, for the line that counts chunks.
        console: where lines and progress bars go (those of the first rank).
        workers: blocks read at the same time.
        device: "auto" or a torch device.
        feature_shards: over how many ranks the features of each SAE are shared out; weights do not depend on it.
        limits: when checkpoints are written.

    Raises:
        ConfigError: there is no such data, or the settings contradict each other, the data or the number of ranks.
        IdentityError: the name of an SAE has other settings or other data.
        Interrupted: a signal came; checkpoints were written if there was time.
        KubesaeError: memory ran out.

    """
    limits = limits or Limits()
    results = TrainResults([], {})
    identity = require_identity(data)
    targets = resolve_targets(several, identity, feature_shards)
    with join_ranks(device, feature_shards) as ranks, noticing_signals(limits.grace) as stop, torch.no_grad():
        console = console if ranks.first else Console(silent)
        passes = [(these, _split(data, identity, these[0])) for these in shared_passes(targets)]
        if ranks.first:
            _claim_names(output, targets, identity)
        around = Surroundings(output, identity, ranks, console, stop, limits, several=len(targets) > 1)
        for number, (these, split) in enumerate(passes, start=1):
            _say_pass(console, these, number, len(passes))
            _announce(console, Plan.of(identity), chunk, split)
            with BlockSource(data, identity.storage, identity.d_model, workers) as source, _memory_for(these):
                ended = _train(around, these, split, source, results.diverged)
            results.complete.extend(_finish(around, ended, workers))
    return results


def _split(data: Store, identity: DataIdentity, target: Target) -> Split:
    """Return the blocks of a pass that this SAE takes part in."""
    refs, settings = _complete_index(data, identity, target.layer), target.settings
    return split_blocks(refs, identity.sha256, settings.validation, settings.max_tokens)


def _complete_index(data: Store, identity: DataIdentity, layer: int) -> list[BlockRef]:
    refs = read_index(data, identity, layer)
    rows = sum(ref.rows for ref in refs)
    if rows != identity.tokens:
        raise ConfigError(
            f"Only {rows:,} of {identity.tokens:,} tokens are committed at {data.url}. Finish `kubesae collect` first: "
            "it goes on where it was."
        )
    return refs


def _claim_names(output: Store, targets: Sequence[Target], identity: DataIdentity) -> None:
    """Fix the settings of all names, or of none where one has others."""
    documents = {target.name: config_document(target, identity) for target in targets}
    for claim in (check_name, claim_name):
        for name, document in documents.items():
            claim(output, name, document)


def _say_pass(console: Console, targets: Sequence[Target], number: int, passes: int) -> None:
    """Say which SAEs a pass is for, where there are several."""
    names = ", ".join(target.name for target in targets)
    if passes > 1:
        console.line(f"Pass {number} of {passes}: {names}")
    elif len(targets) > 1:
        console.line(f"Training {len(targets)} SAEs in one pass: {names}")


def _announce(console: Console, plan: Plan, chunk: int, split: Split) -> None:
    chunks = sum(len(chunk_edges(plan.quota(shard), chunk)) for shard in range(plan.num_shards))
    console.line(f"Found {chunks} activation chunks")
    console.line(f"Total activations: {plan.tokens:,}")
    console.line(f"Train size: {split.train_rows:,}")
    console.line(f"Val size: {split.validation_rows:,}")


def _memory_for(targets: Sequence[Target]) -> AbstractContextManager[None]:
    """Say what to do where memory runs out for these SAEs, which are all in it at once."""
    tokens, features = targets[0].settings.batch_size, sum(target.config.d_sae for target in targets)
    if len(targets) == 1:
        mend = "Lower --batch-size, --shuffle-rows or --d-sae, or share them among ranks (torchrun, --feature-shards)."
        return memory_for(f"steps of {tokens:,} tokens on an SAE of {features:,} features", mend)
    return memory_for(
        f"steps of {tokens:,} tokens on {len(targets)} SAEs of {features:,} features together",
        "Train fewer at a time (--sae-name), lower batch_size, shuffle_rows or d_sae, or share them among ranks "
        "(torchrun, --feature-shards).",
    )


def _train(
    around: Surroundings, targets: Sequence[Target], split: Split, source: BlockSource, diverged: dict[str, str]
) -> list[Ended]:
    """Train SAEs in one pass; return those that are complete, and note why others diverged."""
    together, complete = assemble(around, targets, split, source)
    together.run()
    ended = {one.target.name: one for one in complete}
    for trainee in together.trainees:
        target = next(target for target in targets if target.name == trainee.name)
        if trainee.diverged:
            diverged[trainee.name] = trainee.diverged
        else:
            ended[trainee.name] = Ended(target, trainee.progress.best or {}, trainee.learner.l1_coeff)
    return [ended[target.name] for target in targets if target.name in ended]


def _finish(around: Surroundings, ended: Sequence[Ended], workers: int) -> list[TrainResult]:
    """Write the comparison and the reports, print the advice, return the results.

    A report is what shows that a training has ended, so it is written last.
    """
    if around.ranks.first and ended:
        write_comparison(around.output)
    results = []
    for one in ended:
        result, speed = _report(around, one, workers)
        results.append(result)
        for sentence in result.advice:
            around.console.line(f"{one.target.name}: {sentence}" if around.several else sentence)
        for sentence in speed if one is ended[0] else ():  # of the pass, and nearly the same for all in it
            around.console.line(sentence)
    return results


def _report(around: Surroundings, ended: Ended, workers: int) -> tuple[TrainResult, list[str]]:
    """Write an SAE's report; return the result, and advice on the speed of this run, which is no part of it."""
    target, best = ended.target, ended.best
    lines = MetricsLog(around.output, target.name).read() if around.ranks.first else []
    advice = advise(target.config, target.settings, best, ended.l1_coeff)
    speed = advise_speed(lines, workers)
    report = keys.report(target.name)
    if around.ranks.first:
        document = report_html(about(target, around), lines, best, advice + speed)
        around.output.put(report, document.encode())
    folder = keys.checkpoint_folder(target.name, best["step"])
    return TrainResult(target.name, folder, best, report, advice), speed
