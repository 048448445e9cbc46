"""ReLU + L1 SAE (Anthropic, "Update on how we train SAEs", April 2024).

B = rows, D = d_model, F = features, N = active entries.

    z     = W_enc (x - b_dec) + b_enc
    f     = ReLU(z)
    x_hat = f W_dec + b_dec
    loss  = mean over rows and dimensions of (x - x_hat)^2
            + l1 * PENALTY / sqrt(d_model) * mean over rows of sum_i f_i |W_dec_i|

The penalty weighs each activation by the norm of its decoder row: without that, a free decoder makes the penalty vanish
by growing as the activations shrink. With a unit decoder (rows of norm 1, as in "Towards Monosemanticity",
2023) the penalty is sum_i f_i, without norms and their gradients.

What l1 = 1e-3 means. Inputs are normalised to a mean square of 1, so |x| is about sqrt(d_model), and so are the
activations of a given number of features: divided by that root, a coefficient asks for the same sparsity at every
width. PENALTY fixes the unit such that 1e-3 gives an L0 of 50 to 100 once training has settled: 77.2 (FVU 0.166) on
layer 12 of SmolLM2-135M with 4,608 features, lr 3e-4, batches of 512, three epochs of 294,000 tokens. L0 falls from
half of all features on the way there, so fewer steps end above it. In the units of the reference (errors summed over
dimensions, |x| = sqrt(d_model)) its coefficient is l1 * PENALTY * sqrt(d_model): 3.0 here, where the reference has 5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from kubesae.sae.gradients import b_dec_gradient, sparse_gradients
from kubesae.sae.kernels import code_above, decode, feature_sums
from kubesae.sae.sliced import SPARSE_BELOW, Part, decoder_norms, sliced_step
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.kernels import Code
    from kubesae.sae.shard import Shard
    from kubesae.sae.step import Batch, Step

PENALTY = 125.0


def penalty_weight(l1_coeff: float, d_model: int) -> float:
    """Return what sum_i f_i |W_dec_i| is multiplied by in the loss."""
    return l1_coeff * PENALTY / math.sqrt(d_model)


def encode(x_centred_BD: Tensor, weights: Weights, dtype: torch.dtype) -> Tensor:
    """Return f of x - b_dec as dense [B, F], in the dtype it is multiplied in."""
    return torch.addmm(weights.b_enc_F.to(dtype), x_centred_BD.to(dtype), weights.W_enc_FD.to(dtype).T).relu_()


def to_code(f_BF: Tensor, dtype: torch.dtype) -> Code:
    """Return the positive entries of `f_BF` as a code with values in `dtype`."""
    return code_above(f_BF, 0.0, dtype)


def loss_and_gradients(
    x_BD: Tensor, weights: Weights, l1_coeff: float, batch: Batch, *, unit_decoder: bool = False
) -> Step:
    """Forward and backward of one batch, by hand.

    Args:
        x_BD: normalised activations of this rank.
        weights: in float32 (float64 for oracles).
        l1_coeff: sparsity coefficient of this step.
        batch: what the rows are a share of.
        unit_decoder: the decoder's rows are kept at norm 1.

    """
    l1 = penalty_weight(l1_coeff, x_BD.shape[1]) / batch.total_rows
    norm_F = None if unit_decoder else decoder_norms(weights)
    l1_F = torch.full_like(weights.b_enc_F, l1) if norm_F is None else norm_F * l1
    mean = 1 / (batch.total_rows * x_BD.shape[1])

    def backward(rows_BD: Tensor) -> Part:
        gradients, activation_F, squared_error, active = _backward(rows_BD, weights, l1_F, -2 * mean, batch)
        loss = squared_error * mean + activation_F @ l1_F
        turn_F = None if norm_F is None else activation_F * l1
        return Part(gradients, loss, squared_error, active, activation_F, turn_F)

    return sliced_step(x_BD, weights, backward)


def _backward(
    x_BD: Tensor, weights: Weights, l1_F: Tensor, scale: float, batch: Batch
) -> tuple[Weights, Tensor, Tensor, Tensor]:
    """Return gradients, the sums [F] of f, the squared error and the number of active entries: this shard's shares.

    Args:
        x_BD: its rows.
        weights: the weights.
        l1_F: the penalty's gradient by f.
        scale: what errors are multiplied by to give the gradient by x_hat.
        batch: what the rows are a share of.

    """
    x_centred_BD = x_BD - weights.b_dec_D
    f_BF = encode(x_centred_BD, weights, batch.dtype)
    active = (f_BF > 0).sum(dtype=torch.int32)
    backward = _sparse if active < SPARSE_BELOW * f_BF.numel() else _dense
    return (*backward(f_BF, x_centred_BD, weights, l1_F, scale, batch.shard), active)


def _sparse(
    f_BF: Tensor, x_centred_BD: Tensor, weights: Weights, l1_F: Tensor, scale: float, shard: Shard
) -> tuple[Weights, Tensor, Tensor]:
    """Backward of a slice with few active entries."""
    code = to_code(f_BF, x_centred_BD.dtype)
    e_BD = x_centred_BD - shard.sum(decode(code, weights.W_dec_FD))
    gradients = sparse_gradients(code, x_centred_BD, e_BD * scale, weights, shard, l1_F)
    return gradients, feature_sums(code, len(l1_F)), shard.once(e_BD.square().sum())


def _dense(
    f_BF: Tensor, x_centred_BD: Tensor, weights: Weights, l1_F: Tensor, scale: float, shard: Shard
) -> tuple[Weights, Tensor, Tensor]:
    """Backward of any slice, by products in the dtype of `f_BF`."""
    dtype, exact = f_BF.dtype, x_centred_BD.dtype
    W_dec_FD = weights.W_dec_FD.to(dtype)
    e_BD = x_centred_BD - shard.sum((f_BF @ W_dec_FD).to(exact))
    g_BD = e_BD * scale
    dz_BF = torch.addmm(l1_F.to(dtype), g_BD.to(dtype), W_dec_FD.T).mul_(f_BF > 0)
    db_enc_F = dz_BF.sum(0, dtype=exact)
    gradients = Weights(
        W_enc_FD=(dz_BF.T @ x_centred_BD.to(dtype)).to(exact),
        b_enc_F=db_enc_F,
        W_dec_FD=(f_BF.T @ g_BD.to(dtype)).to(exact),
        b_dec_D=b_dec_gradient(g_BD, db_enc_F, weights, shard),
    )
    return gradients, f_BF.sum(0, dtype=exact), shard.once(e_BD.square().sum())
