"""What one training step of any architecture returns, and the backward pass that all sparse codes share.

B = rows of this rank's share of a batch, D = d_model, F = features, N = entries of the code.

Losses are means over the rows of the whole batch. A rank passes `total_rows`, the rows of all ranks together, so that
gradients and losses of the ranks only have to be summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.sae.auxk import add_auxk
from kubesae.sae.kernels import ByFeature, decode, dots
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kubesae.sae.auxk import AuxK
    from kubesae.sae.kernels import Code

    # returns the sum of a small tensor over all ranks
    Reduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Step:
    """Gradients and sums of one step. Sums over ranks are the values of the whole batch.

    Attributes:
        gradients: of `loss`.
        loss: what is minimised, a share of the mean over the batch.
        squared_error: sum over rows and dimensions of (x - x_hat)^2.
        active: entries above 0, over all rows.
        fired_F: bool [F], which features were above 0 in any row.

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
    *,
    total_rows: int,
    dtype: torch.dtype,
    reduce: Reduce,
) -> Step:
    """Return the step of a code whose loss is the mean squared error, with the auxiliary loss.

    Args:
        code: the active features.
        x_centred_BD: x - b_dec, of this rank.
        weights: the weights that made the code.
        auxk: the auxiliary loss; nothing is computed when its coefficient is 0 or no feature is dead.
        total_rows: rows of the batch over all ranks.
        dtype: of dense products.
        reduce: sums a tensor over all ranks.

    """
    e_BD = x_centred_BD - decode(code, weights.W_dec_FD)
    squared_error = e_BD.square().sum()
    scale = 1 / (total_rows * x_centred_BD.shape[1])
    gradients = sparse_gradients(code, x_centred_BD, e_BD * (-2 * scale), weights)
    loss = squared_error * scale
    if auxk.coefficient > 0 and len(auxk.dead_A) > 0:
        loss = loss + add_auxk(gradients, x_centred_BD, e_BD, weights, auxk, total_rows, dtype, reduce)
    return Step(gradients, loss, squared_error, (code.values_N > 0).sum(), fired(code, len(weights.b_enc_F)))


def sparse_gradients(
    code: Code, x_centred_BD: Tensor, g_BD: Tensor, weights: Weights, l1_F: Tensor | None = None
) -> Weights:
    """Return all gradients; see `feature_gradients`."""
    W_enc_FD, b_enc_F, W_dec_FD = feature_gradients(code, x_centred_BD, g_BD, weights, l1_F)
    return Weights(W_enc_FD, b_enc_F, W_dec_FD, g_BD.sum(0) - b_enc_F @ weights.W_enc_FD)


def feature_gradients(
    code: Code, x_centred_BD: Tensor, g_BD: Tensor, weights: Weights, l1_F: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradients of W_enc, b_enc and W_dec.

    By the chain rule through x_hat = f W_dec + b_dec and f = ReLU(W_enc (x - b_dec) + b_enc).

    Args:
        code: f, sparse.
        x_centred_BD: x - b_dec.
        g_BD: gradient of the loss by x_hat.
        weights: the weights that made the code.
        l1_F: gradient by f_i that every active entry has on top, [F].

    """
    df_N = dots(code, g_BD, weights.W_dec_FD)
    if l1_F is not None:
        df_N += l1_F[code.features_N]
    dz_N = df_N * (code.values_N > 0)
    by_feature = ByFeature(code, len(weights.W_dec_FD))
    ones_B1 = torch.ones_like(g_BD[:, :1])
    return (
        by_feature.sum(dz_N, x_centred_BD),
        by_feature.sum(dz_N, ones_B1).squeeze(1),
        by_feature.sum(code.values_N, g_BD),
    )


def fired(code: Code, features: int) -> Tensor:
    """Return bool [features]: which features have an entry above 0."""
    fired_F = torch.zeros(features, dtype=torch.bool, device=code.features_N.device)
    fired_F[code.features_N[code.values_N > 0]] = True
    return fired_F


def no_gradients(weights: Weights) -> Weights:
    """Return zeros in the shapes of `weights`, to add to."""
    return Weights(*(torch.zeros_like(tensor) for tensor in weights))


def add_gradients(total: Weights, more: Weights) -> None:
    """Add `more` to `total`, in place."""
    for left, right in zip(total, more, strict=True):
        left.add_(right)
