"""ReLU + L1 SAE with a free decoder (Anthropic, "Update on how we train SAEs", April 2024).

B = rows, D = d_model, F = features, N = active entries.

    z     = W_enc (x - b_dec) + b_enc
    f     = ReLU(z)
    x_hat = f W_dec + b_dec
    loss  = mean over rows and dimensions of (x - x_hat)^2
            + l1 * PENALTY / sqrt(d_model) * mean over rows of sum_i f_i |W_dec_i|

The penalty weighs each activation by the norm of its decoder row: without that, a free decoder makes the penalty vanish
by growing as the activations shrink.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import Code, decode, product
from kubesae.sae.step import Step, fired, sparse_gradients
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

PENALTY = 100.0
# Below this share of active entries, sparse products are faster than dense ones.
_SPARSE_BELOW = 1 / 32
# Rows are worked through in slices of this many entries, which bounds memory (and keeps a CPU's caches warm).
_SLICE = 1 << 22
_SLICE_DEVICE = 1 << 29


def penalty_weight(l1_coeff: float, d_model: int) -> float:
    """Return what sum_i f_i |W_dec_i| is multiplied by in the loss."""
    return l1_coeff * PENALTY / math.sqrt(d_model)


def encode(x_centred_BD: Tensor, weights: Weights, dtype: torch.dtype) -> Tensor:
    """Return f of x - b_dec, dense [B, F], in `dtype`, in which it is multiplied."""
    W_DF = weights.W_enc_FD.to(dtype).T
    return torch.addmm(weights.b_enc_F.to(dtype), x_centred_BD.to(dtype), W_DF).relu_()


def to_code(f_BF: Tensor, dtype: torch.dtype) -> Code:
    """Return the positive entries of `f_BF` as a code with values in `dtype`."""
    rows_N, features_N = torch.nonzero(f_BF, as_tuple=True)
    offsets = torch.searchsorted(rows_N, torch.arange(len(f_BF) + 1, device=f_BF.device))
    return Code(offsets, features_N, f_BF[rows_N, features_N].to(dtype))


def loss_and_gradients(
    x_BD: Tensor, weights: Weights, l1_coeff: float, *, total_rows: int, dtype: torch.dtype
) -> Step:
    """Forward and backward of one batch, by hand. Slices with few active entries are multiplied sparsely.

    Args:
        x_BD: normalised activations of this rank.
        weights: in float32 (float64 for oracles).
        l1_coeff: sparsity coefficient of this step.
        total_rows: rows of the batch over all ranks.
        dtype: of dense products.

    """
    norm_F = torch.linalg.vector_norm(weights.W_dec_FD, dim=1)
    l1 = penalty_weight(l1_coeff, x_BD.shape[1]) / total_rows
    total = _empty_step(weights)
    features_sum_F = torch.zeros_like(norm_F)
    limit = _SLICE if x_BD.device.type == "cpu" else _SLICE_DEVICE
    for rows_BD in x_BD.split(max(1, limit // len(norm_F))):
        total = _add_slice(total, features_sum_F, rows_BD, weights, norm_F * l1, total_rows, dtype)
    # d |W_i| / d W_i = W_i / |W_i|, times how much the feature was active
    gradients = total.gradients
    gradients.W_dec_FD.addcmul_(weights.W_dec_FD, (features_sum_F * l1 / norm_F.clamp_min(1e-30))[:, None])
    gradients.b_dec_D.sub_(gradients.b_enc_F @ weights.W_enc_FD)
    loss = total.squared_error / (total_rows * x_BD.shape[1]) + l1 * features_sum_F @ norm_F
    return Step(gradients, loss, total.squared_error, total.active, total.fired_F)
