"""How alike features are: each feature's largest cosine with another one's decoder row.

Two features of one direction say the same twice, and a feature that was split says a part of it. F = features,
D = d_model, T = features of a tile. The F x F matrix is never whole: a tile of its rows is made, searched and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.precision import matmul_dtype

if TYPE_CHECKING:
    from torch import Tensor

_TILE = 1 << 24
"""cosines in memory at a time"""


@dataclass(frozen=True, slots=True)
class Nearest:
    """For each feature the one whose decoder row is nearest, int64 [F], and their cosine, float32 [F]."""

    other_F: Tensor
    cosine_F: Tensor


@torch.no_grad()
def nearest(W_dec_FD: Tensor, tile: int = _TILE) -> Nearest:
    """Return each feature's nearest one; there have to be two at least.

    The nearest is found by products in `matmul_dtype`, which is quick: of features that are equally near to within its
    precision any may be found. The cosine is then that of the pair in float32, so it is never too large.
    """
    W_FD = F.normalize(W_dec_FD.float())
    fast_DF = W_FD.to(matmul_dtype(W_FD.device)).T.contiguous()
    others = []
    rows = max(1, tile // len(W_FD))
    for first in range(0, len(W_FD), rows):
        cosine_TF = fast_DF[:, first : first + rows].T @ fast_DF
        itself_T = torch.arange(len(cosine_TF), device=W_FD.device)
        cosine_TF[itself_T, first + itself_T] = -torch.inf
        others.append(cosine_TF.argmax(1))
    other_F = torch.cat(others)
    cosines = [
        torch.linalg.vecdot(W_TD, W_FD[other_T])
        for W_TD, other_T in zip(W_FD.split(rows), other_F.split(rows), strict=True)
    ]
    return Nearest(other_F, torch.cat(cosines))
