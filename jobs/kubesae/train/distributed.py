"""Ranks: several processes that train one SAE, each on its share of every batch.

    torchrun --nproc_per_node=2 -m kubesae.train experiment.yaml

torchrun gives RANK, WORLD_SIZE and LOCAL_RANK; without them there is one rank and every sum is the value itself. The
backend is NCCL on CUDA devices and gloo on CPUs. Gradients, losses and counters are sums over ranks: the losses' scale
already contains the rows of the whole batch (see `kubesae.sae.step`).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist

from kubesae.errors import KubesaeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

# A rank may wait this long for the others to begin. Under elastic torchrun some may belong to a group that is no more.
_JOINING = timedelta(minutes=3)
# And this long for another that is reading, validating or writing a checkpoint.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `world` ranks, the device it computes on, and the group that the ranks are."""

    rank: int
    world: int
    device: torch.device
    group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks, on the device it came from."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def max(self, tensor: Tensor) -> Tensor:
        """Return the elementwise maximum of a tensor over all ranks."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0, self.group)

    def _reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        dist.all_reduce(total, operation, self.group)
        return total.to(tensor.device)


@contextmanager
def join_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Join the ranks that torchrun started, or be the only one; leave them at the end.

    Args:
        device: "auto" (CUDA where there is one, else the CPU) or a torch device.

    Raises:
        KubesaeError: the other ranks do not come.

    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _device(device)
    if world == 1:
        yield Ranks(0, 1, place)
        return
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_JOINING)
        group = dist.new_group(timeout=_TIMEOUT)
    except RuntimeError as error:
        raise KubesaeError(
            f"The {world} ranks of this training have not met within {_JOINING} ({str(error).splitlines()[0]}). Start "
            "again: it goes on from the last checkpoint. Where that does not help, see that the Pods reach each other."
        ) from error
    try:
        yield Ranks(rank, world, place, cast("dist.ProcessGroup", group))
    finally:
        dist.destroy_process_group()


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        wanted = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = torch.device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
