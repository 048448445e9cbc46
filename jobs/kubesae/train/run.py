"""Train an SAE on collected activations, straight from the tars in the store.

    kubesae train experiment.yaml
    torchrun --nproc_per_node=2 -m kubesae.train experiment.yaml

In order: the data's identity and blocks, the settings (fixed by the SAE's name), the newest checkpoint or a start from
a fixed sample, then epochs (`trainer`), then the report. Started again after a kill it goes on bit for bit; a finished
training is only reported.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kubesae.errors import ConfigError
from kubesae.ledger import Plan, chunk_edges, keys, require_identity
from kubesae.memory import memory_for
from kubesae.sae import matmul_dtype
from kubesae.shards import read_index
from kubesae.shards.split import split_blocks
from kubesae.train.advice import advise, advise_speed
from kubesae.train.checkpoint import Checkpoints, claim_name
from kubesae.train.console import Console, silent
from kubesae.train.distributed import join_ranks
from kubesae.train.metrics import MetricsLog
from kubesae.train.reader import BlockSource, Reader
from kubesae.train.report import report_html
from kubesae.train.settings import Target, config_document, resolve_target
from kubesae.train.start import fresh_start, resumed_start
from kubesae.train.stopping import noticing_signals
from kubesae.train.trainer import Limits, Trainer

if TYPE_CHECKING:
    from kubesae.experiment import DataIdentity
    from kubesae.experiment import Sae as Settings
    from kubesae.shards import BlockRef
    from kubesae.shards.split import Split
    from kubesae.store import Store
    from kubesae.train.distributed import Ranks
    from kubesae.train.start import Start
    from kubesae.train.stopping import Stop


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


def run_training(
    data: Store,
    output: Store,
    settings: Settings,
    *,
    chunk: int,
    console: Console,
    workers: int = 2,
    device: str = "auto",
    limits: Limits | None = None,
) -> TrainResult:
    """Train one SAE; see the module's docstring.

    Args:
        data: store of tokens and activations, only read.
        output: store of SAEs.
        settings: the SAE and how it is trained.
        chunk: rows of a chunk, for the line that counts chunks.
        console: where lines and progress bars go (those of the first rank).
        workers: blocks read at the same time.
        device: "auto" or a torch device.
        limits: when checkpoints are written.

    Raises:
        ConfigError: there is no such data, the settings contradict each other or the data, or training diverged.
        IdentityError: the SAE's name has other settings or other data.
        Interrupted: a signal came; a checkpoint was written if there was time.
        KubesaeError: memory ran out.

    """
    limits = limits or Limits()
    with join_ranks(device) as ranks, noticing_signals(limits.grace) as stop, torch.no_grad():
        console = console if ranks.first else Console(silent)
        identity = require_identity(data)
        target = resolve_target(settings, identity)
        refs = _complete_index(data, identity, target.layer)
        split = split_blocks(refs, identity.sha256, settings.validation, settings.max_tokens)
        about = _about(settings, target, identity, ranks)
        if ranks.first:
            claim_name(output, target.name, config_document(settings, target, identity))
        _announce(console, Plan.of(identity), chunk, split)
        step = f"steps of {settings.batch_size:,} tokens on an SAE of {target.config.d_sae:,} features"
        with (
            BlockSource(data, identity.storage, identity.d_model, workers) as source,
            memory_for(step, "Lower --batch-size, --shuffle-rows or --d-sae, or share them among ranks (torchrun)."),
        ):
            trainer = _assemble(output, settings, target, split, source, ranks, console, stop, about)
            trainer.limits = limits
            trainer.run()
        return _finish(output, settings, target, trainer, workers)


def _assemble(
    output: Store,
    settings: Settings,
    target: Target,
    split: Split,
    source: BlockSource,
    ranks: Ranks,
    console: Console,
    stop: Stop,
    about: dict[str, Any],
) -> Trainer:
    """Put the trainer together, at its newest checkpoint or at the beginning."""
    shuffle = {"shuffle_rows": settings.shuffle_rows, "batch_size": settings.batch_size, "seed": settings.seed}
    reader = Reader(source, split.train, ranks=ranks, **shuffle)
    epoch_batches = [reader.batches_of(epoch) for epoch in range(settings.epochs)]
    steps = sum(epoch_batches)
    checkpoints, log = Checkpoints(output, target.name), MetricsLog(output, target.name)
    resumed = checkpoints.newest()
    if resumed is None:
        start = fresh_start(target.config, settings, split.train, source, ranks, steps)
    else:
        start = resumed_start(target.config, settings, split.train, resumed, ranks, steps)
        if ranks.first:
            _tidy(checkpoints, log, start)
        if start.learner.steps < steps:
            at = f"step {start.learner.steps:,} of {steps:,} (epoch {start.progress.epoch + 1})"
            console.line(f"Resuming from {at}")
    return Trainer(
        ranks=ranks,
        learner=start.learner,
        normaliser=start.normaliser,
        reader=reader,
        source=source,
        validation=split.validation,
        epoch_batches=epoch_batches,
        progress=start.progress,
        checkpoints=checkpoints,
        log=log,
        console=console,
        stop=stop,
        about=about,
    )


def _tidy(checkpoints: Checkpoints, log: MetricsLog, start: Start) -> None:
    """Finish what an interrupted attempt began: its metrics go, its pointer to the best is written, old ones go."""
    log.forget_after(start.learner.steps)
    if start.progress.best:
        checkpoints.point_at(start.progress.best)
    checkpoints.prune(start.progress.best)


def _complete_index(data: Store, identity: DataIdentity, layer: int) -> list[BlockRef]:
    refs = read_index(data, identity, layer)
    rows = sum(ref.rows for ref in refs)
    if rows != identity.tokens:
        raise ConfigError(
            f"Only {rows:,} of {identity.tokens:,} tokens are committed at {data.url}. Finish `kubesae collect` first: "
            "it goes on where it was."
        )
    return refs


def _announce(console: Console, plan: Plan, chunk: int, split: Split) -> None:
    chunks = sum(len(chunk_edges(plan.quota(shard), chunk)) for shard in range(plan.num_shards))
    console.line(f"Found {chunks} activation chunks")
    console.line(f"Total activations: {plan.tokens:,}")
    console.line(f"Train size: {split.train_rows:,}")
    console.line(f"Val size: {split.validation_rows:,}")


def _about(settings: Settings, target: Target, identity: DataIdentity, ranks: Ranks) -> dict[str, Any]:
    """Return what metadata.json says of any checkpoint of this training."""
    return {
        "identity": identity.sha256,
        "layer": target.layer,
        "model": identity.model,
        "model_revision": identity.model_revision,
        "name": target.name,
        "numerics": {
            "device": ranks.device.type,
            "machine": platform.machine(),
            "matmul": str(matmul_dtype(ranks.device)).removeprefix("torch."),
            "ranks": ranks.world,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "training": config_document(settings, target, identity)["sae"],
    }


def _finish(output: Store, settings: Settings, target: Target, trainer: Trainer, workers: int) -> TrainResult:
    """Write the report, print the advice, return the result."""
    best = trainer.progress.best or {}
    lines = trainer.log.read() if trainer.ranks.first else []
    advice = advise(target.config, settings, best, trainer.learner.l1_coeff)
    speed = advise_speed(lines, workers)  # about this run on this machine: no part of the result
    report = keys.report(target.name)
    if trainer.ranks.first:
        document = report_html(trainer.about, lines, best, advice + speed)
        output.put(report, document.encode())
    for sentence in advice + speed:
        trainer.console.line(sentence)
    return TrainResult(target.name, keys.checkpoint_folder(target.name, best["step"]), best, report, advice)
