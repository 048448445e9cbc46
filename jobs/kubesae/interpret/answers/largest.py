"""The largest numbers of each row, of equal ones the lower column first: the same on every machine.

B = rows, N = columns, K = kept of each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae import native

if TYPE_CHECKING:
    from torch import Tensor


# Numbers that are sorted at a time.
_SORTED = 1 << 22


def largest(value_BN: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return values and columns of the K = min(most, N) largest of each row, both [B, K], the largest first.

    Compiled kernels find them where they can; they take negative numbers for zero, so rows with fewer than K that are
    positive are left to torch.
    """
    most = min(most, value_BN.shape[1])
    if not (0 < most < value_BN.shape[1] and native.usable(value_BN)):
        return _by_torch(value_BN, most)
    column_BK, value_BK = native.largest(value_BN, most)
    value_BK, order_BK = value_BK.sort(dim=1, descending=True, stable=True)
    column_BK = column_BK.gather(1, order_BK)
    few_B = (value_BK[:, -1] <= 0).nonzero()[:, 0]
    if len(few_B):
        value_BK[few_B], column_BK[few_B] = _by_torch(value_BN[few_B], most)
    return value_BK, column_BK


def _by_torch(value_BN: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Do the same. `torch.topk` leaves open which of equal values it takes: where that matters, rows are sorted."""
    value_BK, column_BK = torch.topk(value_BN, min(most + 1, value_BN.shape[1]), dim=1)
    if 0 < most < value_BN.shape[1]:
        open_B = (value_BK[:, most] == value_BK[:, most - 1]).nonzero()[:, 0]  # one that is not kept is as large
        for row in open_B.split(max(1, _SORTED // value_BN.shape[1])):
            value, column = torch.sort(value_BN[row], dim=1, descending=True, stable=True)
            value_BK[row], column_BK[row] = value[:, : most + 1], column[:, : most + 1]
    value_BK, column_BK = value_BK[:, :most], column_BK[:, :most]
    column_BK, order_BK = column_BK.sort(dim=1)
    value_BK, by_value_BK = value_BK.gather(1, order_BK).sort(dim=1, descending=True, stable=True)
    return value_BK, column_BK.gather(1, by_value_BK)
