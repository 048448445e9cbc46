"""A shard as pieces that lie end to end: runs of one document, and what belongs to none. Pure.

P = pieces. BOS at the beginning of a context belongs to no document; its corpus is that of the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kubesae.corpus import ShardTokens
    from kubesae.ledger import Part, Plan


@dataclass(frozen=True)
class Pieces:
    """The pieces of a shard, which cover each of its rows once.

    Attributes:
        start_P, stop_P: first row of the shard, and the one after the last.
        corpus, document: names; None where there is none.

    """

    start_P: npt.NDArray[np.int64]
    stop_P: npt.NDArray[np.int64]
    corpus: Sequence[str | None]
    document: Sequence[str | None]

    @property
    def planned_P(self) -> npt.NDArray[np.int64]:
        """Rows of each piece."""
        return self.stop_P - self.start_P

    def stored_P(self, plan: Plan, shard: int, parts: Collection[int]) -> npt.NDArray[np.int64]:
        """Rows of each piece that lie in `parts`."""
        rows = np.array([plan.part(shard, part).rows * (part in parts) for part in range(plan.parts(shard))])
        before = np.concatenate([[0], np.cumsum(rows)])
        size = plan.contexts_per_part * plan.context

        def stored_before(row_P: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            part_P = np.minimum(row_P // size, len(rows) - 1)
            found: npt.NDArray[np.int64] = before[part_P] + np.minimum(row_P - part_P * size, rows[part_P])
            return found

        return stored_before(self.stop_P) - stored_before(self.start_P)

    def add_marked(self, count_P: npt.NDArray[np.int64], part: Part, marked: npt.NDArray[np.bool_]) -> None:
        """Add to `count_P` how many of the rows `marked` (bool [rows]) of `part` each piece has."""
        stop = part.start + part.rows
        first = int(np.searchsorted(self.stop_P, part.start, side="right"))
        last = int(np.searchsorted(self.start_P, stop, side="left"))
        before = np.concatenate([[0], np.cumsum(marked)])
        begin = np.maximum(self.start_P[first:last], part.start) - part.start
        end = np.minimum(self.stop_P[first:last], stop) - part.start
        count_P[first:last] += before[end] - before[begin]


def pieces_of(tokens: ShardTokens, context: int, rows: int) -> Pieces:
    """Return the pieces of a shard with `rows` rows."""
    run_stop = tokens.start + tokens.tokens
    gap_start = np.concatenate([[0], run_stop])
    gap_stop = np.concatenate([tokens.start, [rows]])
    (gap,) = np.nonzero(gap_stop > gap_start)
    corpus_of_gap = [_corpus(tokens, int(i), int(gap_start[i]), context) for i in gap]
    start = np.concatenate([tokens.start, gap_start[gap]]).astype(np.int64)
    stop = np.concatenate([run_stop, gap_stop[gap]]).astype(np.int64)
    order = np.argsort(start, kind="stable")
    corpus: list[str | None] = [*tokens.corpus, *corpus_of_gap]
    document: list[str | None] = [*tokens.document, *[None] * len(gap)]
    return Pieces(start[order], stop[order], [corpus[i] for i in order], [document[i] for i in order])


def _corpus(tokens: ShardTokens, following: int, row: int, context: int) -> str | None:
    """Corpus of the context that `row`, which belongs to no run, is in: that of the run that follows it there."""
    if following < len(tokens.start) and tokens.start[following] // context == row // context:
        return tokens.corpus[following]
    return None
