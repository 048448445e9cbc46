"""Ranks: several processes that train one SAE, each on its share of every batch, of the features, or of both.

    torchrun --nproc_per_node=4 -m kubesae.train experiment.yaml --feature-shards 2

torchrun gives RANK, WORLD_SIZE and LOCAL_RANK; without them there is one rank and every sum is the value itself. The
backend is NCCL on CUDA devices and gloo on CPUs. Gradients, losses and counters are sums over ranks: the losses' scale
already contains the rows of the whole batch (see `kubesae.sae.step`).

With N feature shards the ranks are a table of N columns, filled row by row. A row of it has the same batches, and each
of its ranks other features; a column has the same features, and each of its ranks other rows of a batch:

    features    0 .. F/2   F/2 .. F
    data 0      rank 0     rank 1
    data 1      rank 2     rank 3

Neighbours share out the features, because they wait for each other several times a step: ranks of one node, where N
divides their number.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from kubesae.errors import ConfigError, KubesaeError
from kubesae.sae.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

# A rank may wait this long for the others to begin. Under elastic torchrun some may belong to a group that is no more.
_JOINING = timedelta(minutes=3)
# And this long for another that is reading, validating or writing a checkpoint.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `world` ranks, the device it computes on, and the group that the ranks are.

    Of all ranks, `column` and `line` are those that have this one's features and those that have its rows of a batch;
    None where all ranks have all features.
    """

    rank: int
    world: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    column: Ranks | None = None
    line: Ranks | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    @property
    def data(self) -> Ranks:
        """The ranks that share out the rows of a batch and have the same features."""
        return self.column or self

    @property
    def features(self) -> Ranks:
        """The ranks that share out the features and have the same rows."""
        return self.line or Ranks(0, 1, self.device)

    @property
    def shard(self) -> Shard:
        """This rank's share of the features."""
        return Shard(self.features.rank, self.features.world, self.features.sum, self.features.gather)

    def sum_shards(self, tensor: Tensor) -> Tensor:
        """Return the sum over shards of what all ranks of a column have the same; equal bits on all ranks."""
        if self.features.world == 1:
            return tensor
        return self.sum(tensor if self.data.first else torch.zeros_like(tensor))

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

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, in order and of one shape, on the device this one came from."""
        if self.world == 1:
            return [tensor]
        mine = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine, self.group)
        return [part.to(tensor.device) for part in parts]

    def join(self, tensor: Tensor) -> Tensor | None:
        """Return the tensors of all ranks, of one shape, as one in the CPU's memory; None on others than the first.

        On the devices there is one part more than before at a time.
        """
        if self.world == 1:
            return tensor
        if not self.first:
            dist.send(tensor.contiguous(), group=self.group, group_dst=0)
            return None
        parts = [tensor.cpu()]
        for rank in range(1, self.world):
            part = torch.empty_like(tensor, memory_format=torch.contiguous_format)
            dist.recv(part, group=self.group, group_src=rank)
            parts.append(part.cpu())
        return torch.cat(parts)

    def _reduce(self, tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world == 1:
            return tensor
        total = tensor.to(self.device, copy=True)
        dist.all_reduce(total, operation, self.group)
        return total.to(tensor.device)


@contextmanager
def join_ranks(device: str = "auto", feature_shards: int = 1) -> Iterator[Ranks]:
    """Join the ranks that torchrun started, or be the only one; leave them at the end.

    Args:
        device: "auto" (CUDA where there is one, else the CPU) or a torch device.
        feature_shards: over how many ranks the features are shared out.

    Raises:
        ConfigError: the ranks are no multiple of the shards.
        KubesaeError: the other ranks do not come.

    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world % feature_shards:
        raise ConfigError(
            f"--feature-shards is {feature_shards}, but there are {world} ranks. Start a multiple of "
            f"{feature_shards} (torchrun --nproc_per_node={feature_shards}), or lower it."
        )
    place = _device(device)
    if world == 1:
        yield Ranks(0, 1, place)
        return
    try:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=_JOINING)
        group = dist.new_group(timeout=_TIMEOUT)
        column, line = _table(world, feature_shards, place) if feature_shards > 1 else (None, None)
    except RuntimeError as error:
        raise KubesaeError(
            f"The {world} ranks of this training have not met within {_JOINING} ({str(error).splitlines()[0]}). Start "
            "again: it goes on from the last checkpoint. Where that does not help, see that the Pods reach each other."
        ) from error
    try:
        yield Ranks(rank, world, place, cast("dist.ProcessGroup", group), column, line)
    finally:
        dist.destroy_process_group()


def _table(world: int, feature_shards: int, device: torch.device) -> tuple[Ranks, Ranks]:
    """Return this rank's column and line of the table of ranks (see the module's docstring).

    A mesh that makes its groups itself gives them the backend's time-out, of NCCL ten minutes: a rank that writes a
    large checkpoint takes longer.
    """
    ranks = torch.arange(world).view(-1, feature_shards)
    groups = [
        cast("dist.ProcessGroup", dist.new_subgroups_by_enumeration(these.tolist(), timeout=_TIMEOUT)[0])
        for these in (ranks.T, ranks)
    ]
    mesh = DeviceMesh.from_group(groups, device.type, ranks, mesh_dim_names=("data", "features"))
    column, line = (
        Ranks(mesh.get_local_rank(name), mesh.size(i), device, mesh.get_group(name))
        for i, name in enumerate(("data", "features"))
    )
    return column, line


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        wanted = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    device = torch.device(wanted)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
