"""Which of an SAE's features a rank holds: all of them, or one of several equal shares.

B = rows, C = candidates of a row, F = features of this shard, N = shards.

Shard i of N holds features i F to (i + 1) F - 1, of which it numbers the first 0, with everything that belongs to them;
b_dec, which belongs to all, every shard has. The shards of one SAE see the same rows. What they make of them is of two
kinds, of which sums over all ranks must count each once:

    a share     of a sum over features: x_hat, L0, a penalty, the gradient of b_dec
    the same    on each of them: rows, the squared error. `once` makes a share of it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import top_k

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    # returns the sum of a tensor over ranks
    Reduce = Callable[[Tensor], Tensor]
    # returns a tensor of each rank, in order; all have the same shape
    Gather = Callable[[Tensor], Sequence[Tensor]]


def alone(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks where there is one."""
    return tensor


def _gather_alone(tensor: Tensor) -> Sequence[Tensor]:
    return (tensor,)


@dataclass(frozen=True, slots=True)
class Shard:
    """A share of the features.

    Attributes:
        index: which one.
        count: of how many.
        sum: sums a tensor over the shards.
        gather: returns a tensor of each shard, in order.

    """

    index: int = 0
    count: int = 1
    sum: Reduce = alone
    gather: Gather = _gather_alone

    def once(self, tensor: Tensor) -> Tensor:
        """Return a share of what is the same on all shards: all of it on the first, 0 on others."""
        return tensor if self.index == 0 else torch.zeros_like(tensor)

    def own(self, whole: Tensor) -> Tensor:
        """Return this shard's part of a tensor that has a line for each feature."""
        size = len(whole) // self.count
        return whole[self.index * size : (self.index + 1) * size]

    def span(self, begin: int, end: int, features: int) -> tuple[int, int]:
        """Return which of this shard's `features` are among the features `begin` to `end` - 1 of all, as a range."""
        offset = self.index * features
        return min(max(begin - offset, 0), features), min(max(end - offset, 0), features)

    def among_largest(self, values_BC: Tensor, k: int) -> Tensor:
        """Return bool [B, C]: which of this shard's candidates are among the k largest of a row on all shards.

        Of equal ones the lower features, as in `kernels.top_k`: candidates come in the order of their features. Every
        shard has as many, and together k at least. Only values travel: places say which features they are of.
        """
        joined = torch.cat(list(self.gather(values_BC)), dim=1)
        kept = torch.zeros_like(joined, dtype=torch.bool).scatter_(1, top_k(joined, k)[1].long(), value=True)
        begin = self.index * values_BC.shape[1]
        return kept[:, begin : begin + values_BC.shape[1]]


WHOLE = Shard()
