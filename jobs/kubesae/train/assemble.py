"""Put a pass together: each SAE at its newest checkpoint or at the beginning, and those that are done already."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from kubesae.precision import matmul_dtype
from kubesae.sae.backend import backend_name
from kubesae.train.checkpoint import Checkpoints
from kubesae.train.pace import Pace
from kubesae.train.passes import Limits, Pass
from kubesae.train.reader import Reader
from kubesae.train.settings import config_document
from kubesae.train.start import fresh_start, resumed_start, take_sample
from kubesae.train.trackers import trackers_of
from kubesae.train.trainee import Trainee

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.experiment import DataIdentity
    from kubesae.sae import Normaliser
    from kubesae.shards.split import Split
    from kubesae.store import Store
    from kubesae.train.checkpoint import Resumed
    from kubesae.train.console import Console
    from kubesae.train.distributed import Ranks
    from kubesae.train.reader import BlockSource
    from kubesae.train.settings import Target
    from kubesae.train.start import Start
    from kubesae.train.stopping import Stop


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all SAEs of a run have in common; `several`: there are more than one, and lines have to say which."""

    output: Store
    identity: DataIdentity
    ranks: Ranks
    console: Console
    stop: Stop
    limits: Limits
    several: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """An SAE whose training has ended: its best epoch's metrics, and the l1 coefficient at the end."""

    target: Target
    best: dict[str, Any]
    l1_coeff: float


def assemble(
    around: Surroundings, targets: Sequence[Target], split: Split, source: BlockSource
) -> tuple[Pass, list[Ended]]:
    """Return the pass that trains what is left of these SAEs, which share one, and those with nothing left.

    Raises:
        DamagedError: a checkpoint is damaged, or the sample cannot be used.

    """
    ranks, settings = around.ranks, targets[0].settings
    shuffle = {"shuffle_rows": settings.shuffle_rows, "batch_size": settings.batch_size, "seed": settings.order_seed}
    reader = Reader(source, split.train, ranks=ranks.data, **shuffle)
    epoch_batches = [reader.batches_of(epoch) for epoch in range(settings.epochs)]
    total, sample = sum(epoch_batches), None
    normalisers: list[Normaliser] = []
    trainees, ended = [], []
    for target in targets:
        resumed = _resumed(around, target)
        if resumed is None:
            sample = sample or take_sample(split.train, settings.order_seed, source, target.config.d_model, ranks)
            start = fresh_start(target, sample, split.train, ranks, total)
        elif resumed.progress.epoch >= settings.epochs:
            ended.append(Ended(target, resumed.progress.best or {}, resumed.numbers["l1_coeff"]))
            continue
        else:
            _say_resumed(around.console, target.name if around.several else None, resumed, total)
            start = resumed_start(target, resumed, split.train, ranks, total)
        trainees.append(_trainee(around, target, start, _shared(start.normaliser, normalisers), Pace(reader)))
    together = Pass(
        ranks=ranks,
        reader=reader,
        source=source,
        validation=split.validation,
        epoch_batches=epoch_batches,
        trainees=trainees,
        console=around.console,
        stop=around.stop,
        named=around.several,
        limits=around.limits,
    )
    return together, ended


def _resumed(around: Surroundings, target: Target) -> Resumed | None:
    """Return an SAE's newest checkpoint, None where there is none; finish what an interrupted attempt began."""
    checkpoints = Checkpoints(around.output, target.name)
    resumed = checkpoints.newest()
    if resumed and around.ranks.first:
        for tracker in trackers_of(around.output, target.name):
            tracker.forget_after(int(resumed.numbers["steps"]))
        checkpoints.settle(resumed.progress.best)
    return resumed


def _trainee(around: Surroundings, target: Target, start: Start, normaliser: Normaliser, pace: Pace) -> Trainee:
    return Trainee(
        name=target.name,
        learner=start.learner,
        normaliser=normaliser,
        progress=start.progress,
        checkpoints=Checkpoints(around.output, target.name),
        trackers=trackers_of(around.output, target.name),
        console=around.console,
        about=about(target, around),
        pace=pace,
        first=around.ranks.first,
    )


def _say_resumed(console: Console, name: str | None, resumed: Resumed, total: int) -> None:
    at = f"step {int(resumed.numbers['steps']):,} of {total:,} (epoch {resumed.progress.epoch + 1})"
    console.line(f"{name}: Resuming from {at}" if name else f"Resuming from {at}")


def _shared(normaliser: Normaliser, known: list[Normaliser]) -> Normaliser:
    """Return an equal one of `known`, so that rows are normalised once for both; else itself, which is then known."""
    for other in known:
        if other.scale == normaliser.scale and torch.equal(other.mean_D, normaliser.mean_D):
            return other
    known.append(normaliser)
    return normaliser


def about(target: Target, around: Surroundings) -> dict[str, Any]:
    """Return what metadata.json says of any checkpoint of this training."""
    identity, ranks = around.identity, around.ranks
    return {
        "identity": identity.sha256,
        "layer": target.layer,
        "model": identity.model,
        "model_revision": identity.model_revision,
        "name": target.name,
        "numerics": {
            "device": ranks.device.type,
            "kernels": backend_name(ranks.device),
            "machine": platform.machine(),
            "matmul": str(matmul_dtype(ranks.device)).removeprefix("torch."),
            "feature_shards": ranks.features.world,
            "ranks": ranks.world,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "training": config_document(target, identity)["sae"],
    }
