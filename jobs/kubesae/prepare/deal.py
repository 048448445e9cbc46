"""Second step of prepare: which packed contexts go to which shard and place, by a seeded permutation.

Every part of every shard then has the mixture of the corpora, and the pilot is representative. All of it is arithmetic
on counts: `spill` moves the contexts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.ledger import Plan

_DEAL = 2  # streams of the experiment's seed: 1 orders files, 2 deals


@dataclass(frozen=True, slots=True)
class Pool:
    """The tokenised contexts of one corpus: `sizes[u]` contexts in unit `u`."""

    corpus: str
    sizes: tuple[int, ...]

    @property
    def contexts(self) -> int:
        """Contexts in all units."""
        return sum(self.sizes)


def split_by_weight(total: int, weights: Sequence[float]) -> list[int]:
    """Split `total` in proportion to `weights`, exactly: largest remainders first, ties to the earlier one."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def deal(pools: Sequence[Pool], wanted: Sequence[int], seed: int) -> npt.NDArray[np.int64]:
    """Choose and order contexts: int64 [sum(wanted), 3] of corpus, unit and context of the unit."""
    generator = np.random.Generator(np.random.PCG64([seed, _DEAL]))
    chosen = []
    for number, (pool, count) in enumerate(zip(pools, wanted, strict=True)):
        sizes = np.array(pool.sizes, np.int64)  # empty where the weight gives the corpus no context
        unit = np.repeat(np.arange(len(sizes)), sizes)
        context = np.arange(pool.contexts) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        take = np.sort(generator.permutation(pool.contexts)[:count])
        chosen.append(np.stack([np.full(count, number), unit[take], context[take]], axis=1))
    contexts: npt.NDArray[np.int64] = np.concatenate(chosen).astype(np.int64)
    return contexts[generator.permutation(len(contexts))]


@dataclass(frozen=True, slots=True)
class Share:
    """What is dealt of one segment: its contexts, ascending, and where each goes.

    Attributes:
        corpus: number of the corpus.
        unit: unit of the corpus.
        context: int64 [contexts], contexts of the segment.
        shard: int64 [contexts], shard of each.
        place: int64 [contexts], place of each among the shard's contexts.

    """

    corpus: int
    unit: int
    context: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]


class Layout:
    """A deal by segment and by shard."""

    def __init__(self, plan: Plan, order: npt.NDArray[np.int64]) -> None:
        """Take `order` of `deal`: shard 0 has the first contexts, and so on."""
        self.plan = plan
        self._order = order
        self._edges = np.cumsum([0, *(plan.contexts(shard) for shard in range(plan.num_shards))])
        self._by_segment = np.lexsort((order[:, 2], order[:, 1], order[:, 0]))
        self._shard = np.searchsorted(self._edges, self._by_segment, side="right") - 1

    def segments(self) -> Iterator[Share]:
        """Yield each segment that something is dealt of, by corpus and unit."""
        chosen = self._order[self._by_segment]
        place = self._by_segment - self._edges[self._shard]
        starts = np.flatnonzero(np.any(np.diff(chosen[:, :2], axis=0) != 0, axis=1)) + 1
        for rows in np.split(np.arange(len(chosen)), starts):
            corpus, unit = chosen[rows[0], :2].tolist()
            yield Share(corpus, unit, chosen[rows, 2], self._shard[rows], place[rows])

    def places(self, shard: int) -> npt.NDArray[np.int64]:
        """Place in `shard` of each of its contexts, in the order in which `segments` gives them."""
        places: npt.NDArray[np.int64] = self._by_segment[self._shard == shard] - self._edges[shard]
        return places

    def tokens(self, corpus: int) -> int:
        """Tokens that are dealt of a corpus: the last context of each shard is cut at its quota."""
        rows = np.full(len(self._order), self.plan.context)
        for shard, (first, end) in enumerate(zip(self._edges, self._edges[1:], strict=False)):
            rows[end - 1] -= (end - first) * self.plan.context - self.plan.quota(shard)
        return int(rows[self._order[:, 0] == corpus].sum())
