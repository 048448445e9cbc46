"""Where a training begins: from its newest checkpoint, or from a fixed sample of the data.

S = rows of the sample, D = d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.errors import DamagedError
from kubesae.sae import Normaliser, initial_weights
from kubesae.sae.jumprelu import first_threshold
from kubesae.sae.weights import FREE_DECODER_NORM, no_weights
from kubesae.shards.order import permutation
from kubesae.train.checkpoint import Progress
from kubesae.train.learner import Learner
from kubesae.train.settings import unit_decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.experiment import Sae as Settings
    from kubesae.sae import SaeConfig, Weights
    from kubesae.shards import BlockRef
    from kubesae.train.checkpoint import Resumed
    from kubesae.train.distributed import Ranks
    from kubesae.train.reader import BlockSource
    from kubesae.train.settings import Target

# Rows of the first training blocks that the normaliser is fitted to, and of these, evenly, the decoder's first bias.
SAMPLE_ROWS = 32_768
MEDIAN_ROWS = 8_192
_DEAD_AFTER = 10_000_000
_DEAD_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Start:
    """A learner, how its inputs are normalised, and where in the data it is."""

    learner: Learner
    normaliser: Normaliser
    progress: Progress


@dataclass(frozen=True, slots=True)
class Sample:
    """A fixed sample of the data: what new SAEs of a pass start from.

    Attributes:
        normaliser: fitted to it; every rank has it.
        rows_SD: some of its rows, normalised; None on other ranks than the first.

    """

    normaliser: Normaliser
    rows_SD: Tensor | None


def take_sample(train: Sequence[BlockRef], order_seed: int, source: BlockSource, d_model: int, ranks: Ranks) -> Sample:
    """Read a sample and fit the normaliser on rank 0, and give it to the others."""
    mean_D = torch.zeros(d_model, device=ranks.device)
    scale = torch.zeros((), dtype=torch.float64, device=ranks.device)
    rows_SD = None
    if ranks.first:
        sample_SD = read_sample(source, [train[i] for i in permutation(len(train), order_seed, 0)])
        normaliser = Normaliser.fit(sample_SD)
        rows_SD = normaliser.apply(sample_SD[:: -(-len(sample_SD) // MEDIAN_ROWS)])
        mean_D.copy_(normaliser.mean_D)
        scale.fill_(normaliser.scale)
    ranks.broadcast((mean_D, scale))
    return Sample(Normaliser(mean_D, float(scale)), rows_SD)


def fresh_start(target: Target, sample: Sample, train: Sequence[BlockRef], ranks: Ranks, total_steps: int) -> Start:
    """Draw all weights on rank 0, and give the others theirs."""
    drawn = None if sample.rows_SD is None else draw_weights(target.config, target.settings, sample.rows_SD)
    weights = _deal(drawn, shard_weights(target.config, ranks), ranks)
    learner = make_learner(target.config, target.settings, weights, train, ranks, total_steps)
    return Start(learner, sample.normaliser, Progress())


def shard_weights(config: SaeConfig, ranks: Ranks) -> Weights:
    """Return zeros in the shapes of the weights of this rank's features."""
    return no_weights(config.model_copy(update={"d_sae": config.d_sae // ranks.features.world}), ranks.device)


def _deal(drawn: Weights | None, weights: Weights, ranks: Ranks) -> Weights:
    """Fill `weights` on every rank with its part of what rank 0 has drawn; there is one part more at a time."""
    whole = {} if drawn is None else drawn.named()
    for name, mine in weights.named().items():
        shards = 1 if name == "b_dec" else ranks.features.world
        for index in range(shards):
            part = mine if index == ranks.features.rank or shards == 1 else torch.empty_like(mine)
            if name in whole:
                part.copy_(whole[name].chunk(shards)[index])
            ranks.broadcast((part,))
    return weights


def draw_weights(config: SaeConfig, settings: Settings, sample_SD: Tensor) -> Weights:
    """Return the weights that `settings` start with, all of them on the CPU; `sample_SD` is normalised."""
    return initial_weights(
        config,
        sample_SD,
        settings.seed,
        decoder_norm=1.0 if unit_decoder(settings) else FREE_DECODER_NORM,
        threshold=first_threshold(settings.jumprelu_recipe, config.d_model),
        centre=settings.b_dec_start,
        device=torch.device("cpu"),
    )


def resumed_start(target: Target, resumed: Resumed, train: Sequence[BlockRef], ranks: Ranks, total_steps: int) -> Start:
    """Go on from a checkpoint."""
    weights = shard_weights(target.config, ranks)
    learner = make_learner(target.config, target.settings, weights, train, ranks, total_steps)
    learner.restore(resumed.tensors, resumed.numbers)
    return Start(learner, resumed.normaliser.to(ranks.device), resumed.progress)


def make_learner(
    config: SaeConfig,
    settings: Settings,
    weights: Weights,
    train: Sequence[BlockRef],
    ranks: Ranks,
    total_steps: int,
) -> Learner:
    """Return a learner for these training blocks. Features die after one epoch without activation at the latest."""
    dead_after = rows_until_dead(settings, sum(ref.rows for ref in train))
    return Learner(config, settings, weights, ranks, total_steps, dead_after)


def rows_until_dead(settings: Settings, epoch_rows: int) -> int:
    """Return after how many rows without activation a feature is dead: those of an epoch at most.

    The 10 million of arXiv 2406.04093 are for trainings of billions of rows. In a short one a feature that is revived
    by the end of an epoch has no time left to learn.
    """
    default = min(_DEAD_AFTER, round(_DEAD_SHARE * settings.epochs * epoch_rows))
    return max(1, min(settings.dead_after or default, epoch_rows))


def read_sample(source: BlockSource, refs: Sequence[BlockRef]) -> Tensor:
    """Return unflagged raw rows, float32 [S, d_model], of the first blocks: `SAMPLE_ROWS`, or all there are.

    Raises:
        DamagedError: every row is flagged.

    """
    wanted, count = [], 0
    for ref in refs:
        wanted.append(ref)
        count += ref.rows
        if count >= 2 * SAMPLE_ROWS:
            break
    parts: list[Tensor] = []
    missing = SAMPLE_ROWS
    for rows_BD in source.blocks(wanted):
        parts.append(rows_BD[:missing].float())
        missing -= len(parts[-1])
        if missing <= 0:
            break
    sample_SD = torch.cat(parts)
    if len(sample_SD) == 0:
        raise DamagedError(
            f"All rows of the first {len(wanted)} training blocks are flagged: there is nothing to train on. Look at "
            "the flag counts of `kubesae ledger`."
        )
    return sample_SD
