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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import Code, decode
from kubesae.sae.step import Step, add_gradients, no_gradients, sparse_gradients
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

PENALTY = 100.0
# Below this share of active entries, sparse products are faster than dense ones.
SPARSE_BELOW = 1 / 16
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
    mean = 1 / (total_rows * x_BD.shape[1])
    limit = _SLICE if x_BD.device.type == "cpu" else _SLICE_DEVICE
    sums = _Sums(
        no_gradients(weights), torch.zeros_like(norm_F), x_BD.new_zeros(()), torch.zeros_like(norm_F[0]).long()
    )
    for rows_BD in x_BD.split(max(1, limit // len(norm_F))):
        x_centred_BD = rows_BD - weights.b_dec_D
        f_BF = encode(x_centred_BD, weights, dtype)
        entries = (f_BF > 0).sum(dtype=torch.int32)
        sums.active += entries
        add = _add_sparse if entries < SPARSE_BELOW * f_BF.numel() else _add_dense
        add(sums, f_BF, x_centred_BD, weights, norm_F * l1, -2 * mean)
    # the norm's own gradient: d |W_i| / d W_i = W_i / |W_i|
    turn_F = sums.activation_F * l1 / norm_F.clamp_min(1e-30)
    sums.gradients.W_dec_FD.addcmul_(weights.W_dec_FD, turn_F[:, None])
    loss = sums.squared_error * mean + l1 * (sums.activation_F @ norm_F)
    return Step(sums.gradients, loss, sums.squared_error, sums.active, sums.activation_F > 0)


@dataclass
class _Sums:
    """What the slices of a batch add up to; `activation_F`: sum of f over rows."""

    gradients: Weights
    activation_F: Tensor
    squared_error: Tensor
    active: Tensor


def _add_sparse(sums: _Sums, f_BF: Tensor, x_centred_BD: Tensor, weights: Weights, l1_F: Tensor, scale: float) -> None:
    """Add a slice with few active entries. `l1_F`: the penalty's gradient by f; `scale`: of the gradient by x_hat."""
    code = to_code(f_BF, x_centred_BD.dtype)
    e_BD = x_centred_BD - decode(code, weights.W_dec_FD)
    add_gradients(sums.gradients, sparse_gradients(code, x_centred_BD, e_BD * scale, weights, l1_F))
    sums.activation_F.index_add_(0, code.features_N, code.values_N)
    sums.squared_error += e_BD.square().sum()


def _add_dense(sums: _Sums, f_BF: Tensor, x_centred_BD: Tensor, weights: Weights, l1_F: Tensor, scale: float) -> None:
    """Add a slice by dense products in the dtype of `f_BF`; arguments as above."""
    dtype, exact = f_BF.dtype, x_centred_BD.dtype
    W_dec_FD = weights.W_dec_FD.to(dtype)
    e_BD = x_centred_BD - f_BF @ W_dec_FD
    g_BD = e_BD * scale
    dz_BF = torch.addmm(l1_F.to(dtype), g_BD.to(dtype), W_dec_FD.T).mul_(f_BF > 0)
    db_enc_F = dz_BF.sum(0, dtype=exact)
    gradients = Weights(
        W_enc_FD=dz_BF.T @ x_centred_BD.to(dtype),
        b_enc_F=db_enc_F,
        W_dec_FD=f_BF.T @ g_BD.to(dtype),
        b_dec_D=g_BD.sum(0) - db_enc_F @ weights.W_enc_FD,
    )
    add_gradients(sums.gradients, gradients)
    sums.activation_F += f_BF.sum(0, dtype=exact)
    sums.squared_error += e_BD.square().sum()
