"""Batches of activations, straight from the tars in the store.

An epoch takes the training blocks in a seeded permutation. A run of them, about `shuffle_rows` rows, is a *window*: its
blocks are read by ranged reads into one preallocated buffer while the window before it is trained on. They stay there
as they lie in the tar, and a batch is gathered from them, while the batch before it is trained on: each row is copied
once. Memory: two windows and two batches.

A window has a planned number of batches, ceil(its rows / batch size); each of its blocks is shuffled and dealt evenly
over them, so every batch holds rows of every block of its window. Flagged rows (first positions, special tokens, norm
outliers) are left out, which makes batches a little smaller, never different in number. Where blocks have fewer rows
than a window has batches, some batches have a few rows more than asked for.

With several ranks, rank r reads and deals blocks r, r + n, r + 2n, ... of each window. So each block is read once, by
one rank, and the rows of every batch are the same for any number of ranks. Ranks that share out the features instead
all read what one of them would. What is read next follows from two integers,
epoch and position (batches of the epoch already taken); nothing else has to be stored to resume.
"""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from kubesae.shards import codec, read_block
from kubesae.shards.order import permutation
from kubesae.train.windows import windows_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from types import TracebackType

    import numpy.typing as npt
    from torch import Tensor

    from kubesae.shards import BlockData, BlockRef
    from kubesae.store import Store
    from kubesae.train.distributed import Ranks
    from kubesae.train.windows import Window

CACHE_LINE = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of this rank's share of a batch. They lie in memory that is written to once the next batch is asked for.

    Attributes:
        x_BD: raw activations as stored [rows, d_model], bfloat16 or float32; of int8-block32 bfloat16, exactly.
        total_rows: rows of the batch over all ranks.
        position: batches of the epoch taken once this one is.

    """

    x_BD: Tensor
    total_rows: int
    position: int


@dataclass(frozen=True, slots=True)
class _Share:
    """This rank's share of a batch, with its rows in each batch of the window from where the epoch was entered."""

    x_BD: Tensor
    sizes: list[int]
    position: int


class BlockSource:
    """Reads blocks into buffers, several at once."""

    def __init__(self, store: Store, storage: str, d_model: int, workers: int) -> None:
        """`storage` is the storage dtype; `workers` blocks are read at the same time."""
        self._store = store
        self._codec = codec(storage)
        self._d_model = d_model
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="read")

    def __enter__(self) -> Self:
        """Begin to use the source."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the reading threads; reads that have not begun are dropped, and after an error none is waited for."""
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def start(self, refs: Sequence[BlockRef], buffer: npt.NDArray[np.uint8]) -> list[Future[BlockData]]:
        """Begin to read `refs` one after the other into `buffer`, of at least `bytes_of(refs)`."""
        ends = np.cumsum([_padded(ref) for ref in refs])
        return [
            self._pool.submit(read_block, self._store, ref, memoryview(buffer[end - _padded(ref) : end]))
            for ref, end in zip(refs, ends, strict=True)
        ]

    def memory(self, rows: int) -> npt.NDArray[Any]:
        """Return memory for rows [rows, d_model] that `gather` fills.

        numpy's and not torch's: it comes in huge pages, which are much cheaper to touch first.
        """
        return self._codec.memory(rows, self._d_model)

    def gather(self, pieces: Sequence[tuple[BlockData, npt.NDArray[np.int64]]], memory: npt.NDArray[Any]) -> Tensor:
        """Copy rows of blocks, given by their numbers in the block, to `memory`, one piece after the other."""
        at = 0
        for block, rows in pieces:
            block.stored.gather(rows, memory[at : at + len(rows)])
            at += len(rows)
        return torch.from_numpy(memory[:at]).view(getattr(torch, self._codec.loaded))

    def blocks(self, refs: Sequence[BlockRef]) -> Iterator[Tensor]:
        """Yield the unflagged rows of each block, in order, reading one ahead."""
        if not refs:
            return
        size = max(_padded(ref) for ref in refs)
        buffers = [np.empty(size, np.uint8), np.empty(size, np.uint8)]
        ahead = self.start(refs[:1], buffers[0])
        for i in range(len(refs)):
            (reading,) = ahead
            block = reading.result()
            ahead = self.start(refs[i + 1 : i + 2], buffers[(i + 1) % 2])
            rows = np.flatnonzero(block.flags == 0)
            yield self.gather([(block, rows)], self.memory(len(rows)))


def bytes_of(refs: Sequence[BlockRef]) -> int:
    """Return the bytes of a buffer for these blocks."""
    return sum(_padded(ref) for ref in refs)


def _padded(ref: BlockRef) -> int:
    """Bytes of a block's place in a buffer: rows that begin at a cache line in the tar do so here."""
    return -(-ref.bytes // CACHE_LINE) * CACHE_LINE


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
        """`refs` are the training blocks of all ranks; `ranks` those that share out the rows of a batch."""
        self._source = source
        self._refs = refs
        self._shuffle_rows = shuffle_rows
        self._batch_size = batch_size
        self._seed = seed
        self._ranks = ranks
        self._buffers = [np.empty(0, np.uint8), np.empty(0, np.uint8)]
        self._batches = [source.memory(0), source.memory(0)]
        self._reading: list[Future[BlockData]] = []
        self.waited = 0.0
        """Seconds that batches were waited for."""

    def windows(self, epoch: int) -> list[Window]:
        """Return the windows of an epoch."""
        return windows_of(self._refs, self._shuffle_rows, self._batch_size, self._seed, epoch)

    def batches_of(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        return sum(window.batches for window in self.windows(epoch))

    def batches(self, epoch: int, position: int) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch after the first `position`. Every rank must take the same ones.

        A thread is one batch ahead. What ranks do together is done here: they meet in the order of the callers' steps.
        """
        gathered = self._gathered(epoch, position)
        pool = ThreadPoolExecutor(1, thread_name_prefix="gather")
        ahead = pool.submit(next, gathered, None)
        totals: list[int] = []
        try:
            while True:
                began = time.perf_counter()
                share = ahead.result()
                self.waited += time.perf_counter() - began
                if share is None:
                    return
                ahead = pool.submit(next, gathered, None)
                totals = totals or self._ranks.sum(torch.tensor(share.sizes)).tolist()
                yield Batch(share.x_BD, totals.pop(0), share.position)
        except GeneratorExit:  # who goes on with another epoch reads into the same buffers
            for reading in self._reading:
                reading.cancel()
            pool.shutdown()
            gathered.close()
            raise
        finally:
            pool.shutdown(wait=False)

    def _gathered(self, epoch: int, position: int) -> Generator[_Share]:
        """Yield this rank's share of each batch. Its memory is used again two batches later."""
        windows = [window for window in self.windows(epoch) if window.first + window.batches > position]
        shares = [window.refs[self._ranks.rank :: self._ranks.world] for window in windows]
        self._make_room(max(map(bytes_of, shares), default=0))
        self._read_ahead(shares, 0)
        try:
            for i, window in enumerate(windows):
                blocks = [reading.result() for reading in self._reading]
                self._read_ahead(shares, i + 1)
                hands = self._deal(window, [np.flatnonzero(block.flags == 0) for block in blocks], epoch)
                sizes = [sum(map(len, hand)) for hand in hands]
                first = max(0, position - window.first)
                for j in range(first, window.batches):
                    self._batches.reverse()
                    if len(self._batches[0]) < max(sizes):
                        self._batches[0] = self._source.memory(max(sizes))
                    x_BD = self._source.gather(list(zip(blocks, hands[j], strict=True)), self._batches[0])
                    yield _Share(x_BD, sizes[first:], window.first + j + 1)
        except (GeneratorExit, CancelledError):
            wait([reading for reading in self._reading if not reading.cancel()])
            raise

    def _read_ahead(self, shares: Sequence[Sequence[BlockRef]], window: int) -> None:
        """Begin to read a window, if there is one."""
        more = window < len(shares)
        self._reading = self._source.start(shares[window], self._buffers[window % 2]) if more else []

    def _make_room(self, size: int) -> None:
        """Have two buffers of at least `size` bytes; they are kept for the epochs that follow."""
        if len(self._buffers[0]) < size:
            self._buffers = [np.empty(size, np.uint8), np.empty(size, np.uint8)]

    def _deal(
        self, window: Window, unflagged: Sequence[npt.NDArray[np.int64]], epoch: int
    ) -> list[list[npt.NDArray[np.int64]]]:
        """Return for each batch of the window the rows of each of this rank's blocks.

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
        return hands
