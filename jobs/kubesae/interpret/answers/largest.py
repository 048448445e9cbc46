"""The largest numbers of each row, of equal ones the lower column first: the same on every machine.

B = rows, N = columns, K = kept of each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


# Numbers that are sorted at a time.
_SORTED = 1 << 22


def largest(value_BN: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return values and columns of the K = min(most, N) largest of each row, both [B, K], the largest first.

    `torch.topk` leaves open which of equal values it takes: rows where that matters are sorted whole.
    """
    most = min(most, value_BN.shape[1])
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
