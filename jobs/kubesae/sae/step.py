"""One training step: what it needs to know of the batch, what it returns, and the step of every sparse code.

B = rows of this rank's share of a batch, D = d_model, F = features.

Losses are means over the rows of the whole batch, so that gradients and losses of the ranks only have to be summed.
Ranks may share out the rows, the features (`shard`) or both: what several have the same, one of them counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.sae.auxk import add_auxk
from kubesae.sae.gradients import sparse_gradients
from kubesae.sae.kernels import decode
from kubesae.sae.matryoshka import nested_gradients
from kubesae.sae.shard import WHOLE, Shard, alone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.sae.auxk import AuxK
    from kubesae.sae.kernels import Code
    from kubesae.sae.shard import Reduce
    from kubesae.sae.weights import Weights


@dataclass(frozen=True, slots=True)
class Batch:
    """The whole batch, of which a rank has a share.

    Attributes:
        total_rows: its rows, over all ranks.
        dtype: of dense products.
        reduce: sums a tensor over all ranks.
        shard: which of the features this rank holds.

    """

    total_rows: int
    dtype: torch.dtype
    reduce: Reduce = alone
    shard: Shard = WHOLE


@dataclass(frozen=True, slots=True)
class Step:
    """Gradients and sums of one step. Sums over all ranks are the values of the whole batch.

    Attributes:
        gradients: of `loss`, by this rank's features; those of all features together by b_dec are the sum over shards.
        loss: what is minimised, a share of the mean over the batch.
        squared_error: sum over rows and dimensions of (x - x_hat)^2.
        active: entries above 0, over all rows.
        fired_F: bool [F], which of this rank's features were above 0 in any row.

    """

    gradients: Weights
    loss: Tensor
    squared_error: Tensor
    active: Tensor
    fired_F: Tensor


def sparse_step(
    code: Code,
    x_centred_BD: Tensor,
    weights: Weights,
    auxk: AuxK,
    batch: Batch,
    prefixes: Sequence[int] | None = None,
) -> Step:
    """Return the step of a code whose loss is the mean squared error, with the auxiliary loss.

    Args:
        code: the active features.
        x_centred_BD: x - b_dec, of this rank.
        weights: the weights that made the code.
        auxk: the auxiliary loss; nothing is computed when its coefficient is 0 or no feature is dead.
        batch: what the rows are a share of.
        prefixes: numbers of features that each have to reconstruct without the others (`matryoshka`); None: all only.

    """
    shard = batch.shard
    e_BD = x_centred_BD - shard.sum(decode(code, weights.W_dec_FD))
    squared_error = shard.once(e_BD.square().sum())
    scale = 1 / (batch.total_rows * x_centred_BD.shape[1])
    if prefixes is None:
        loss = squared_error * scale
        gradients = sparse_gradients(code, x_centred_BD, e_BD * (-2 * scale), weights, shard)
    else:
        scale /= len(prefixes)
        loss, gradients = nested_gradients(code, x_centred_BD, e_BD, weights, prefixes, scale, shard)
    if auxk.coefficient > 0 and auxk.dead > 0:
        loss = loss + add_auxk(gradients, x_centred_BD, e_BD, weights, auxk, batch)
    return Step(gradients, loss, squared_error, (code.values_N > 0).sum(), fired(code, len(weights.b_enc_F)))


def fired(code: Code, features: int) -> Tensor:
    """Return bool [features]: which features have an entry above 0."""
    fired_F = torch.zeros(features, dtype=torch.bool, device=code.features_N.device)
    fired_F[code.features_N[code.values_N > 0]] = True
    return fired_F
