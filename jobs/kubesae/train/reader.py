"""Batches of activations, straight from the tars in the store.

An epoch takes the training blocks in a seeded permutation. A run of them, about `shuffle_rows` rows, is a *window*: its
blocks are read by ranged reads into one preallocated buffer while the window before it is trained on. A window has a
planned number of batches, ceil(its rows / batch size); each of its blocks is shuffled and dealt evenly over them, so
every batch holds rows of every block of its window. Flagged rows (first positions, special tokens, norm outliers) are
left out, which makes batches a little smaller, never different in number.

With several ranks, rank r reads and deals blocks r, r + n, r + 2n, ... of each window. So each block is read once, by
one rank, and the rows of every batch are the same for any number of ranks. What is read next follows from two integers,
epoch and position (batches of the epoch already taken); nothing else has to be stored to resume.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from kubesae.shards import codec, read_block
from kubesae.train.order import permutation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import numpy.typing as npt
    from torch import Tensor

    from kubesae.shards import BlockRef
    from kubesae.store import Store
    from kubesae.train.distributed import Ranks


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


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of this rank's share of a batch.

    Attributes:
        x_BD: raw activations as stored [rows, d_model], bfloat16 or float32.
        total_rows: rows of the batch over all ranks.
        position: batches of the epoch taken once this one is.

    """

    x_BD: Tensor
    total_rows: int
    position: int


class BlockSource:
    """Reads blocks into buffers, several at once."""

    def __init__(self, store: Store, storage: str, d_model: int, workers: int) -> None:
        """`storage` is the dtype on disk; `workers` blocks are read at the same time."""
        self._store = store
        self._codec = codec(storage)
        self._d_model = d_model
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
        self._scratch = threading.local()

    def __enter__(self) -> Self:
        """Begin to use the source."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the reading threads; reads that have not begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def buffer(self, rows: int) -> npt.NDArray[np.generic]:
        """Return an uninitialised buffer for stored rows."""
        return np.empty((rows, self._d_model), self._codec.disk)

    def tensor(self, stored: npt.NDArray[np.generic]) -> Tensor:
        """View stored rows as a tensor of their dtype."""
        return torch.from_numpy(stored).view(getattr(torch, self._codec.name))

    def start(self, refs: Sequence[BlockRef], buffer: npt.NDArray[np.generic]) -> list[Future[npt.NDArray[np.int64]]]:
        """Begin to read `refs` one after the other into `buffer`.

        Returns:
            for each block, when it is there, the buffer's rows that hold its unflagged rows.

        """
        ends = np.cumsum([ref.rows for ref in refs])
        return [
            self._pool.submit(self._read, ref, buffer, int(end) - ref.rows) for ref, end in zip(refs, ends, strict=True)
        ]

    def _read(self, ref: BlockRef, buffer: npt.NDArray[np.generic], first: int) -> npt.NDArray[np.int64]:
        scratch = getattr(self._scratch, "bytes", b"")
        if len(scratch) < ref.bytes:
            scratch = self._scratch.bytes = bytearray(ref.bytes)
        block = read_block(self._store, ref, memoryview(scratch))
        buffer[first : first + ref.rows] = block.acts
        return first + np.flatnonzero(block.flags == 0)

    def blocks(self, refs: Sequence[BlockRef]) -> Iterator[Tensor]:
        """Yield the unflagged rows of each block, in order, reading one ahead."""
        if not refs:
            return
        size = max(ref.rows for ref in refs)
        buffers = [self.buffer(size), self.buffer(size)]
        ahead = self.start(refs[:1], buffers[0])
        for i in range(len(refs)):
            (reading,) = ahead
            rows = reading.result()
            ahead = self.start(refs[i + 1 : i + 2], buffers[(i + 1) % 2])
            yield self.tensor(buffers[i % 2])[torch.from_numpy(rows)]


class Reader:
    """Batches of an epoch from any position on; see the module's docstring."""

    def __init__(
        self,
        source: BlockSource,
        refs: Sequence[BlockRef],
        *,
        shuffle_rows: int,
        batch_size: int,
        seed: int,
        ranks: Ranks,
    ) -> None:
        """`refs` are the training blocks of all ranks."""
        self._source = source
        self._refs = refs
        self._shuffle_rows = shuffle_rows
        self._batch_size = batch_size
        self._seed = seed
        self._ranks = ranks
        self.waited = 0.0

    def windows(self, epoch: int) -> list[Window]:
        """Return the windows of an epoch."""
        return windows_of(self._refs, self._shuffle_rows, self._batch_size, self._seed, epoch)

    def batches_of(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        return sum(window.batches for window in self.windows(epoch))

    def batches(self, epoch: int, position: int) -> Iterator[Batch]:
        """Yield the batches of an epoch after the first `position`. Every rank must take the same ones."""
        windows = [window for window in self.windows(epoch) if window.first + window.batches > position]
        shares = [window.refs[self._ranks.rank :: self._ranks.world] for window in windows]
        rows = max((_rows(share) for share in shares), default=0)
        buffers = [self._source.buffer(rows), self._source.buffer(rows)]
        ahead = self._source.start(shares[0], buffers[0]) if shares else []
        for i, window in enumerate(windows):
            began = time.perf_counter()
            unflagged = [reading.result() for reading in ahead]
            self.waited += time.perf_counter() - began
            ahead = self._source.start(shares[i + 1], buffers[(i + 1) % 2]) if i + 1 < len(windows) else []
            hands = self._deal(window, unflagged, epoch)
            totals = self._ranks.sum(torch.tensor([len(hand) for hand in hands])).tolist()
            stored = self._source.tensor(buffers[i % 2])
            for j in range(max(0, position - window.first), window.batches):
                x_BD = stored[torch.from_numpy(hands[j])]
                yield Batch(x_BD, totals[j], window.first + j + 1)

    def _deal(
        self, window: Window, unflagged: Sequence[npt.NDArray[np.int64]], epoch: int
    ) -> list[npt.NDArray[np.int64]]:
        """Return the buffer's rows of this rank for each batch of the window.

        Block b gives its section j + b to batch j: where sections differ by a row, batches then differ least.
        """
        hands: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(window.batches)]
        for share, rows in enumerate(unflagged):
            number = self._ranks.rank + share * self._ranks.world
            shuffled = rows[permutation(len(rows), self._seed, epoch, window.refs[number].row)]
            edges = np.arange(window.batches + 1) * len(rows) // window.batches
            for j, hand in enumerate(hands):
                section = (j + number) % window.batches
                hand.append(shuffled[edges[section] : edges[section + 1]])
        return [np.concatenate(hand) if hand else np.zeros(0, np.int64) for hand in hands]
