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
from kubesae.sae.step import Step, add_gradients, fired, no_gradients, sparse_gradients
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

PENALTY = 100.0
# Below this share of active entries, sparse products are faster than dense ones.
SPARSE_BELOW = 1 / 32
# A batch is worked through in slices of this many entries: they bound memory, and fit a CPU's cache.
_SLICE = 1 << 23
_SLICE_DEVICE = 1 << 29


def penalty_weight(l1_coeff: float, d_model: int) -> float:
    """Return what sum_i f_i |W_dec_i| is multiplied by in the loss."""
    return l1_coeff * PENALTY / math.sqrt(d_model)


def encode(x_centred_BD: Tensor, weights: Weights, dtype: torch.dtype) -> Tensor:
    """Return f of x - b_dec as dense [B, F], in the dtype it is multiplied in."""
    return torch.addmm(weights.b_enc_F.to(dtype), x_centred_BD.to(dtype), weights.W_enc_FD.to(dtype).T).relu_()


def to_code(f_BF: Tensor, dtype: torch.dtype) -> Code:
    """Return the positive entries of `f_BF` as a code with values in `dtype`."""
    rows_N, features_N = torch.nonzero(f_BF, as_tuple=True)
    offsets = torch.searchsorted(rows_N, torch.arange(len(f_BF) + 1, device=f_BF.device))
    return Code(offsets, features_N, f_BF[rows_N, features_N].to(dtype))


def loss_and_gradients(x_BD: Tensor, weights: Weights, l1_coeff: float, *, total_rows: int, dtype: torch.dtype) -> Step:
    """Forward and backward of one batch, by hand.

    Args:
        x_BD: normalised activations of this rank.
        weights: in float32 (float64 for oracles).
        l1_coeff: sparsity coefficient of this step.
        total_rows: rows of the batch over all ranks.
        dtype: of dense products.

    """
    norm_F = torch.linalg.vector_norm(weights.W_dec_FD, dim=1)
    l1 = penalty_weight(l1_coeff, x_BD.shape[1]) / total_rows
    limit = _SLICE if x_BD.device.type == "cpu" else _SLICE_DEVICE
    gradients = no_gradients(weights)
    activation_F = torch.zeros_like(norm_F)
    squared_error, active = x_BD.new_zeros(()), x_BD.new_zeros((), dtype=torch.int64)
    for rows_BD in x_BD.split(max(1, limit // len(norm_F))):
        x_centred_BD = rows_BD - weights.b_dec_D
        f_BF = encode(x_centred_BD, weights, dtype)
        entries = torch.count_nonzero(f_BF)
        backward = _sparse if entries < SPARSE_BELOW * f_BF.numel() else _dense
        error = backward(gradients, activation_F, f_BF, x_centred_BD, weights, norm_F * l1, total_rows, dtype)
        squared_error += error
        active += entries
    # the norm's own gradient: d |W_i| / d W_i = W_i / |W_i|
    gradients.W_dec_FD.addcmul_(weights.W_dec_FD, (activation_F * l1 / norm_F.clamp_min(1e-30))[:, None])
    loss = squared_error / (total_rows * x_BD.shape[1]) + l1 * (activation_F @ norm_F)
    return Step(gradients, loss, squared_error, active, activation_F > 0)


def _sparse(
    gradients: Weights,
    activation_F: Tensor,
    f_BF: Tensor,
    x_centred_BD: Tensor,
    weights: Weights,
    l1_F: Tensor,
    total_rows: int,
    dtype: torch.dtype,
) -> Tensor:
    """Add a slice's gradients and sums of activations in place; return its squared error."""
    code = to_code(f_BF, x_centred_BD.dtype)
    e_BD = x_centred_BD - decode(code, weights.W_dec_FD)
    g_BD = e_BD * (-2 / (total_rows * e_BD.shape[1]))
    add_gradients(gradients, sparse_gradients(code, x_centred_BD, g_BD, weights, l1_F))
    activation_F.index_add_(0, code.features_N, code.values_N)
    return e_BD.square().sum()


def _dense(
    gradients: Weights,
    activation_F: Tensor,
    f_BF: Tensor,
    x_centred_BD: Tensor,
    weights: Weights,
    l1_F: Tensor,
    total_rows: int,
    dtype: torch.dtype,
) -> Tensor:
    """The same with dense products."""
    W_dec_FD = weights.W_dec_FD.to(dtype)
    e_BD = x_centred_BD - f_BF @ W_dec_FD
    g_BD = e_BD * (-2 / (total_rows * e_BD.shape[1]))
    dz_BF = torch.addmm(l1_F.to(dtype), g_BD.to(dtype), W_dec_FD.T).mul_(f_BF > 0)
    db_enc_F = dz_BF.sum(0, dtype=e_BD.dtype)
    gradients.W_dec_FD.add_(f_BF.T @ g_BD.to(dtype))
    gradients.W_enc_FD.add_(dz_BF.T @ x_centred_BD.to(dtype))
    gradients.b_enc_F.add_(db_enc_F)
    gradients.b_dec_D.add_(g_BD.sum(0)).sub_(db_enc_F @ weights.W_enc_FD)
    activation_F.add_(f_BF.sum(0, dtype=e_BD.dtype))
    return e_BD.square().sum()
