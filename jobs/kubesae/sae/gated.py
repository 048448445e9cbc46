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
    from torch import Tensor

    from kubesae.sae.step import Batch, Step


class _Biases(NamedTuple):
    """What p is seen with: of each feature ([F]), or of each entry ([N])."""

    gain: Tensor
    b_mag: Tensor
    b_gate: Tensor

    def of(self, features_N: Tensor) -> _Biases:
        return _Biases(*(tensor[features_N] for tensor in self))


def loss_and_gradients(x_BD: Tensor, weights: Weights, l1_coeff: float, batch: Batch) -> Step:
    """Forward and backward of one batch, by hand; see `relu.loss_and_gradients`. Weights have `r_mag_F`, `b_gate_F`."""
    biases = biases_of(weights)
    l1 = penalty_weight(l1_coeff, x_BD.shape[1]) / batch.total_rows
    mean = 1 / (batch.total_rows * x_BD.shape[1])
    W_DF = weights.W_enc_FD.to(batch.dtype).T

    def backward(rows_BD: Tensor) -> Part:
        x_centred_BD = rows_BD - weights.b_dec_D
        p_BF = (x_centred_BD.to(batch.dtype) @ W_DF).to(rows_BD.dtype)
        open_BF = p_BF > -biases.b_gate
        few = open_BF.sum(dtype=torch.int32) < SPARSE_BELOW * open_BF.numel()
        work = _sparse if few else _dense
        return work(p_BF, open_BF, x_centred_BD, weights, biases, l1, mean, batch)

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


def _sparse(
    p_BF: Tensor,
    open_BF: Tensor,
    x_centred_BD: Tensor,
    weights: Weights,
    biases: _Biases,
    l1: float,
    mean: float,
    batch: Batch,
) -> Part:
    """Backward of a slice with few open gates."""
    shard = batch.shard
    code = Code.of(p_BF, open_BF, x_centred_BD.dtype)
    p_N, own = code.values_N, biases.of(code.features_N)
    f = Code(code.offsets_B1, code.features_N, (p_N * own.gain + own.b_mag).relu())
    via = Code(code.offsets_B1, code.features_N, p_N + own.b_gate)
    e_BD = x_centred_BD - shard.sum(decode(f, weights.W_dec_FD))
    left_BD = x_centred_BD - shard.sum(decode(via, weights.W_dec_FD))
    g_BD = e_BD * (-2 * mean)
    df_N = dots(code, g_BD, weights.W_dec_FD)
    dvia_N = dots(code, left_BD * (-2 * mean), weights.W_dec_FD)
    dp_N, *others = _entries(p_N, df_N, dvia_N, f.values_N, own, l1)
    by_feature = ByFeature(code, len(weights.b_enc_F))
    ones_B1 = torch.ones_like(x_centred_BD[:, :1])
    db_mag_F, dr_mag_F, db_gate_F, activation_F = (
        by_feature.sum(values_N, ones_B1).squeeze(1) for values_N in (*others, f.values_N)
    )
    gradients = Weights(
        W_enc_FD=by_feature.sum(dp_N, x_centred_BD),
        b_enc_F=db_mag_F,
        W_dec_FD=by_feature.sum(f.values_N, g_BD),
        b_dec_D=b_dec_gradient(g_BD, biases.gain * db_mag_F + db_gate_F, weights, shard),
        r_mag_F=dr_mag_F,
        b_gate_F=db_gate_F,
    )
    squared_error = shard.once(e_BD.square().sum())
    loss = mean * (squared_error + shard.once(left_BD.square().sum())) + l1 * via.values_N.sum()
    return Part(gradients, loss, squared_error, (f.values_N > 0).sum(), activation_F)


def _dense(
    p_BF: Tensor,
    open_BF: Tensor,
    x_centred_BD: Tensor,
    weights: Weights,
    biases: _Biases,
    l1: float,
    mean: float,
    batch: Batch,
) -> Part:
    """Backward of any slice, by products in the batch's dtype."""
    dtype, shard = batch.dtype, batch.shard
    f_BF = (p_BF * biases.gain + biases.b_mag).relu_().mul_(open_BF)
    via_BF = (p_BF + biases.b_gate).relu_()
    e_BD = x_centred_BD - shard.sum(product(f_BF, weights.W_dec_FD, dtype))
    left_BD = x_centred_BD - shard.sum(product(via_BF, weights.W_dec_FD, dtype))
    g_BD = e_BD * (-2 * mean)
    df_BF = product(g_BD, weights.W_dec_FD.T, dtype)
    dvia_BF = product(left_BD * (-2 * mean), weights.W_dec_FD.T, dtype)
    dp_BF, *others = (by_BF.mul_(open_BF) for by_BF in _entries(p_BF, df_BF, dvia_BF, f_BF, biases, l1))
    db_mag_F, dr_mag_F, db_gate_F, activation_F = (by_BF.sum(0) for by_BF in (*others, f_BF))
    gradients = Weights(
        W_enc_FD=product(dp_BF.T, x_centred_BD, dtype),
        b_enc_F=db_mag_F,
        W_dec_FD=product(f_BF.T, g_BD, dtype),
        b_dec_D=b_dec_gradient(g_BD, biases.gain * db_mag_F + db_gate_F, weights, shard),
        r_mag_F=dr_mag_F,
        b_gate_F=db_gate_F,
    )
    squared_error = shard.once(e_BD.square().sum())
    loss = mean * (squared_error + shard.once(left_BD.square().sum())) + l1 * via_BF.sum()
    return Part(gradients, loss, squared_error, (f_BF > 0).sum(), activation_F)
