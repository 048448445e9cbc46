"""Windows: the runs of blocks that an epoch is shuffled in, in the order in which they are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.shards.order import permutation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.shards import BlockRef


@dataclass(frozen=True, slots=True)
class Window:
    """A run of blocks that is shuffled together. `first` is the epoch's number of its first batch."""

    refs: tuple[BlockRef, ...]
    first: int
    batches: int


def windows_of(refs: Sequence[BlockRef], shuffle_rows: int, batch_size: int, seed: int, epoch: int) -> list[Window]:
    """Return the windows of an epoch, in order. A last one of less than half the size is joined to the one before."""
    runs: list[list[BlockRef]] = []
    room = 0
    for i in permutation(len(refs), seed, epoch):
        if room <= 0:
            runs.append([])
            room = shuffle_rows
        runs[-1].append(refs[i])
        room -= refs[i].rows
    if len(runs) > 1 and _rows(runs[-1]) < shuffle_rows // 2:
        runs[-2].extend(runs.pop())
    windows = []
    first = 0
    for run in runs:
        batches = -(-_rows(run) // batch_size)
        windows.append(Window(tuple(run), first, batches))
        first += batches
    return windows


def _rows(refs: Sequence[BlockRef]) -> int:
    return sum(ref.rows for ref in refs)
