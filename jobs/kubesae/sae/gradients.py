"""The backward pass that all sparse codes share, and sums of gradients.

B = rows, D = d_model, F = features, N = entries of the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import ByFeature, dots
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.kernels import Code
    from kubesae.sae.shard import Shard


def sparse_gradients(
    code: Code, x_centred_BD: Tensor, g_BD: Tensor, weights: Weights, shard: Shard, l1_F: Tensor | None = None
) -> Weights:
    """Return all gradients; see `feature_gradients` and `b_dec_gradient`."""
    W_enc_FD, b_enc_F, W_dec_FD = feature_gradients(code, x_centred_BD, g_BD, weights, l1_F)
    return Weights(W_enc_FD, b_enc_F, W_dec_FD, b_dec_gradient(g_BD, b_enc_F, weights, shard))


def b_dec_gradient(g_BD: Tensor, dp_F: Tensor, weights: Weights, shard: Shard) -> Tensor:
    """Return this shard's share [D] of the gradient by b_dec, which is added to x_hat and subtracted from x.

    Args:
        g_BD: gradient of the loss by x_hat, the same on all shards.
        dp_F: sum over rows of the gradient by W_enc (x - b_dec), of this shard's features.
        weights: the weights.
        shard: which features these are.

    """
    return shard.once(g_BD.sum(0)) - dp_F @ weights.W_enc_FD


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


def no_gradients(weights: Weights) -> Weights:
    """Return zeros in the shapes of `weights`, to add to."""
    return weights.each(torch.zeros_like)


def add_gradients(total: Weights, more: Weights) -> None:
    """Add `more` to `total`, in place."""
    for left, right in zip(total, more, strict=True):
        left.add_(right)
