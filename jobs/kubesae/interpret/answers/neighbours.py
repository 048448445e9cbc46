"""Which features have nearly the same decoder direction: the largest cosines over the full width, exact.

F = features, D = d_model, T = features of a tile, C = candidates, K = neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.features.answers import NEIGHBOURS
from kubesae.interpret.answers.largest import largest
from kubesae.interpret.answers.lists import lists

if TYPE_CHECKING:
    from torch import Tensor

MOST = 20
# More than are kept are found by a product in float32, and put in order by their cosines in float64.
_SPARE = 12
_TILE = 1 << 24
"""cosines in memory at a time"""


@torch.no_grad()
def neighbours_table(W_dec_FD: Tensor, most: int = MOST, tile: int = _TILE) -> pa.Table:
    """Return the `most` nearest features of each, itself left out; of equally near ones the lower number first.

    The F x F matrix is never whole: a tile of its rows is made, searched and dropped. A decoder row of length 0 has
    cosine 0 with all others.

    Args:
        W_dec_FD: decoder, float32 [F, D]; rows need not have length 1.
        most: neighbours of each; all others where there are fewer.
        tile: cosines in memory at a time, 4 bytes each.

    """
    features = len(W_dec_FD)
    W_FD = F.normalize(W_dec_FD.float())
    exact_FD = F.normalize(W_dec_FD.double())
    others, cosines = [], []
    rows = max(1, tile // features)
    for first in range(0, features, rows):
        cosine_TF = W_FD[first : first + rows] @ W_FD.T
        itself_T = torch.arange(len(cosine_TF), device=W_FD.device)
        cosine_TF[itself_T, first + itself_T] = -torch.inf
        candidate_TC = largest(cosine_TF, min(most + _SPARE, features - 1))[1].sort(1).values
        cosine_TK, place_TK = largest(_cosines(exact_FD, first, candidate_TC), most)
        others.append(candidate_TC.gather(1, place_TK).cpu().numpy())
        cosines.append(cosine_TK.cpu().numpy())
    other_FK, cosine_FK = np.concatenate(others), np.concatenate(cosines)
    width = np.full(features, other_FK.shape[1])
    return pa.table(
        {
            "feature": np.arange(features, dtype=np.int32),
            "neighbours": lists(other_FK.ravel(), width, pa.int32()),
            "cosines": lists(cosine_FK.ravel(), width, pa.float32()),
        }
    ).cast(NEIGHBOURS)


def _cosines(exact_FD: Tensor, first: int, other_TC: Tensor) -> Tensor:
    """Cosines of features `first`, `first` + 1, ... with the others of each, float32 [T, C] as they are stored."""
    own_TD = exact_FD[first : first + len(other_TC)]
    columns = [(own_TD * exact_FD[other_T]).sum(1) for other_T in other_TC.T]
    found_TC = torch.stack(columns, 1) if columns else own_TD.new_zeros(len(own_TD), 0)
    return found_TC.float()
