"""Gated SAE (Rajamanoharan et al. 2024, arXiv 2404.16014), with tied encoders and a unit decoder.

B = rows, D = d_model, F = features, N = entries whose gate is open.

    p     = W_enc (x - b_dec)
    gate  = p + b_gate                                         which features are active
    z     = exp(r_mag) p + b_mag                               how much; b_mag is `b_enc_F`
    f     = ReLU(z) where gate > 0, else 0
    x_hat = f W_dec + b_dec                                    rows of W_dec have norm 1
    loss  = mean over rows and dimensions of (x - x_hat)^2
            + l1 * PENALTY / sqrt(d_model) * mean over rows of sum_i ReLU(gate_i)
            + mean over rows and dimensions of (x - x_via)^2
    x_via = ReLU(gate) W_dec + b_dec                           W_dec and b_dec are constants here

The penalty shrinks only the gate, so activations stay as large as reconstruction wants them. Without the third term the
gate would learn nothing of reconstruction; with a decoder that is not frozen there, the decoder would learn from shrunk
activations. b_dec, as it is subtracted from the input, gets gradients from all three.

l1 is in the units of `relu.penalty_weight`. In use it is an SAE with thresholds: see `threshold.in_use`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from kubesae.sae.gradients import b_dec_gradient
from kubesae.sae.kernels import ByFeature, Code, decode, dots, product
from kubesae.sae.relu import penalty_weight
from kubesae.sae.sliced import SPARSE_BELOW, Part, sliced_step
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.sae.step import Batch, Step


class _Biases(NamedTuple):
    """What p is seen with: of each feature ([F]), or of each entry ([N])."""

    gain: Tensor
    b_mag: Tensor
    b_gate: Tensor

    def of(self, features_N: Tensor) -> _Biases:
        return _Biases(*(tensor[features_N] for tensor in self))


class _Slice(NamedTuple):
    """Rows, and what they are seen with. `l1` and `mean` are weights in the loss, of gates and of squares."""

    x_centred_BD: Tensor
    weights: Weights
    biases: _Biases
    l1: float
    mean: float
    batch: Batch


def loss_and_gradients(x_BD: Tensor, weights: Weights, l1_coeff: float, batch: Batch) -> Step:
    """Forward and backward of one batch, by hand; see `relu.loss_and_gradients`. Weights have `r_mag_F`, `b_gate_F`."""
    biases = biases_of(weights)
    l1 = penalty_weight(l1_coeff, x_BD.shape[1]) / batch.total_rows
    mean = 1 / (batch.total_rows * x_BD.shape[1])
    W_DF = weights.W_enc_FD.to(batch.dtype).T

    def backward(rows_BD: Tensor) -> Part:
        rows = _Slice(rows_BD - weights.b_dec_D, weights, biases, l1, mean, batch)
        p_BF = (rows.x_centred_BD.to(batch.dtype) @ W_DF).to(rows_BD.dtype)
        open_BF = p_BF > -biases.b_gate
        few = open_BF.sum(dtype=torch.int32) < SPARSE_BELOW * open_BF.numel()
        return (_sparse if few else _dense)(p_BF, open_BF, rows)

    return sliced_step(x_BD, weights, backward)


def biases_of(weights: Weights) -> _Biases:
    """Return exp(r_mag), b_mag and b_gate of weights that have them."""
    if weights.r_mag_F is None or weights.b_gate_F is None:
        raise ValueError("these are not the weights of a gated SAE: r_mag or b_gate is missing")
    return _Biases(weights.r_mag_F.exp(), weights.b_enc_F, weights.b_gate_F)


def _entries(p: Tensor, df: Tensor, dvia: Tensor, f: Tensor, biases: _Biases, l1: float) -> tuple[Tensor, ...]:
    """Return the gradients by p, b_mag, r_mag and b_gate of entries whose gate is open.

    `df` and `dvia` are the gradients by f and by ReLU(gate) that the two reconstructions have.
    """
    dz = df * (f > 0)
    dgate = dvia + l1
    return dz * biases.gain + dgate, dz, dz * biases.gain * p, dgate


def _sparse(p_BF: Tensor, open_BF: Tensor, rows: _Slice) -> Part:
    """Backward of a slice with few open gates."""
    x_centred_BD, W_dec_FD = rows.x_centred_BD, rows.weights.W_dec_FD
    code = Code.of(p_BF, open_BF, x_centred_BD.dtype)
    p_N, own = code.values_N, rows.biases.of(code.features_N)
    f = Code(code.offsets_B1, code.features_N, (p_N * own.gain + own.b_mag).relu())
    via = Code(code.offsets_B1, code.features_N, p_N + own.b_gate)
    e_BD, left_BD = _errors(decode(f, W_dec_FD), decode(via, W_dec_FD), rows)
    g_BD, g_via_BD = e_BD * (-2 * rows.mean), left_BD * (-2 * rows.mean)
    df_N, dvia_N = dots(code, g_BD, W_dec_FD), dots(code, g_via_BD, W_dec_FD)
    dp_N, *others = _entries(p_N, df_N, dvia_N, f.values_N, own, rows.l1)
    by_feature = ByFeature(code, len(W_dec_FD))
    ones_B1 = torch.ones_like(x_centred_BD[:, :1])
    sums = [by_feature.sum(values_N, ones_B1).squeeze(1) for values_N in (*others, f.values_N)]
    W_enc_FD, W_dec_FD = by_feature.sum(dp_N, x_centred_BD), by_feature.sum(f.values_N, g_BD)
    return _part(W_enc_FD, W_dec_FD, sums, (e_BD, left_BD), via.values_N.sum(), (f.values_N > 0).sum(), rows)


def _dense(p_BF: Tensor, open_BF: Tensor, rows: _Slice) -> Part:
    """Backward of any slice, by products in the batch's dtype."""
    x_centred_BD, W_dec_FD, biases, dtype = rows.x_centred_BD, rows.weights.W_dec_FD, rows.biases, rows.batch.dtype
    f_BF = (p_BF * biases.gain + biases.b_mag).relu_().mul_(open_BF)
    via_BF = (p_BF + biases.b_gate).relu_()
    e_BD, left_BD = _errors(product(f_BF, W_dec_FD, dtype), product(via_BF, W_dec_FD, dtype), rows)
    g_BD, g_via_BD = e_BD * (-2 * rows.mean), left_BD * (-2 * rows.mean)
    df_BF, dvia_BF = product(g_BD, W_dec_FD.T, dtype), product(g_via_BD, W_dec_FD.T, dtype)
    dp_BF, *others = (by_BF.mul_(open_BF) for by_BF in _entries(p_BF, df_BF, dvia_BF, f_BF, biases, rows.l1))
    sums = [by_BF.sum(0) for by_BF in (*others, f_BF)]
    W_enc_FD, W_dec_FD = product(dp_BF.T, x_centred_BD, dtype), product(f_BF.T, g_BD, dtype)
    return _part(W_enc_FD, W_dec_FD, sums, (e_BD, left_BD), via_BF.sum(), (f_BF > 0).sum(), rows)


def _errors(f_decoded_BD: Tensor, via_decoded_BD: Tensor, rows: _Slice) -> tuple[Tensor, Tensor]:
    """Return what the two reconstructions leave over; arguments are this shard's parts of them."""
    shard = rows.batch.shard
    return rows.x_centred_BD - shard.sum(f_decoded_BD), rows.x_centred_BD - shard.sum(via_decoded_BD)


def _part(
    W_enc_FD: Tensor,
    W_dec_FD: Tensor,
    sums: Sequence[Tensor],
    errors: tuple[Tensor, Tensor],
    gates: Tensor,
    active: Tensor,
    rows: _Slice,
) -> Part:
    """Return the sums of a slice.

    Args:
        W_enc_FD: gradient by W_enc.
        W_dec_FD: gradient by W_dec.
        sums: [F] each, over rows: the gradients by b_mag, r_mag and b_gate of entries, and f.
        errors: of the two reconstructions.
        gates: sum of ReLU(gate).
        active: number of entries of f above 0.
        rows: the slice.

    """
    shard, (e_BD, left_BD), (b_mag_F, r_mag_F, b_gate_F, activation_F) = rows.batch.shard, errors, sums
    dp_F = rows.biases.gain * b_mag_F + b_gate_F
    b_dec_D = b_dec_gradient(e_BD * (-2 * rows.mean), dp_F, rows.weights, shard)
    squared_error = shard.once(e_BD.square().sum())
    loss = rows.mean * (squared_error + shard.once(left_BD.square().sum())) + rows.l1 * gates
    gradients = Weights(W_enc_FD, b_mag_F, W_dec_FD, b_dec_D, r_mag_F=r_mag_F, b_gate_F=b_gate_F)
    return Part(gradients, loss, squared_error, active, activation_F)
