"""Ranks as threads of one process: what training does over ranks, without starting processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

from kubesae.train.distributed import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

T = TypeVar("T")
CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)


class Meeting:
    """Where the threads hand in their tensors and get all of them back."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=30)
        self.tensors: list[Tensor | None] = [None] * world

    def gather(self, rank: int, tensor: Tensor) -> list[Tensor]:
        self.tensors[rank] = tensor.clone()
        self.barrier.wait()
        found = [t for t in self.tensors if t is not None]
        self.barrier.wait()
        return found


class ThreadRanks(Ranks):
    """One thread's view; collectives must be called by all, in the same order."""

    def __init__(
        self, rank: int, world: int, meeting: Meeting, column: Ranks | None = None, line: Ranks | None = None
    ) -> None:
        super().__init__(rank, world, CPU, column=column, line=line)
        object.__setattr__(self, "meeting", meeting)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        return self.meeting.gather(self.rank, tensor)

    def sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.meeting.gather(self.rank, tensor)).sum(0, dtype=tensor.dtype)

    def max(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.meeting.gather(self.rank, tensor)).amax(0)

    def join(self, tensor: Tensor) -> Tensor | None:
        parts = self.meeting.gather(self.rank, tensor)
        return torch.cat(parts) if self.first else None

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            tensor.copy_(self.meeting.gather(self.rank, tensor)[0])


def run_ranks(world: int, work: Callable[[Ranks], T], shards: int = 1) -> list[T]:
    """Run `work` on `world` ranks, each `shards` of which share out the features, and return what each gave."""
    if world == 1:
        return [work(ALONE)]
    meeting = Meeting(world)
    columns, lines = (
        [Meeting(world // shards) for _ in range(shards)],
        [Meeting(shards) for _ in range(world // shards)],
    )

    def run(rank: int) -> T:
        row, place = divmod(rank, shards)
        column = ThreadRanks(row, world // shards, columns[place]) if shards > 1 else None
        line = ThreadRanks(place, shards, lines[row]) if shards > 1 else None
        try:
            with torch.no_grad():
                return work(ThreadRanks(rank, world, meeting, column, line))
        except BaseException:
            for each in (meeting, *columns, *lines):
                each.barrier.abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))
