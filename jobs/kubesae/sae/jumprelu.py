"""JumpReLU SAE: every feature learns the threshold above which it is active. Two recipes, `anthropic` and `gdm`.

B = rows, D = d_model, F = features, N = entries that matter.

    z     = W_enc (x - b_dec) + b_enc
    f     = z where z > theta, else 0                          theta = exp(t), t = `log_threshold_F`, always float32
    x_hat = f W_dec + b_dec
    loss  = mean over rows and dimensions of (x - x_hat)^2 + l0 * mean over rows of sum_i S_i  (+ pre-activation loss)

`gdm` (Rajamanoharan et al. 2024, arXiv 2407.14435): S = 1 where z > theta, rows of W_dec have norm 1. Only theta learns
what the step costs, by a rectangle of width eps in place of the step's derivative; I = 1 where |z - theta| < eps / 2:

    dS / dtheta = -I / eps,    df / dtheta = -theta I / eps,    dt = theta dtheta

`anthropic` ("Dictionary Learning Optimization Techniques", January 2025): S = tanh(4 f |W_dec_i|) with a free decoder,
whose gradient reaches the encoder too, and df / dt = -theta I / eps as published. Features that are not active are
pushed up by the pre-activation loss, 3e-6 / d_model * sum_i ReLU(theta - z)_i |W_dec_i|.

The step is of z, not of f: of f it has no gradient below theta (a library shipped that). Only entries above
theta - eps / 2 have gradients, but for the pre-activation loss, whose gradient is the same for all entries below theta
of a feature: it is added for all entries as a whole, and taken back for those above.

Units. Inputs are normalised to a mean square of 1 per dimension, so the first term is the FVU, and l0 is how much FVU
one more active feature has to save, at every width. `gdm` published its coefficients for inputs of norm 1, which have
the same units, and eps = 0.001 and a first theta of 0.001 in units of that norm: here times sqrt(d_model). `anthropic`
has inputs of norm sqrt(d_model), as here, and errors summed over dimensions: its coefficient is l0 * d_model.

t has a learning rate of its own, which follows from the length of the run (`threshold_reach`, `train.learner`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from kubesae.sae.gradients import b_dec_gradient
from kubesae.sae.kernels import ByFeature, Code, decode, dots, product
from kubesae.sae.sliced import SPARSE_BELOW, Part, decoder_norms, sliced_step
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.shard import Shard
    from kubesae.sae.step import Batch, Step

Recipe = Literal["anthropic", "gdm"]

TANH_SCALE = 4.0
PRE_ACTIVATION = 3e-6
_ANTHROPIC_THRESHOLD, _ANTHROPIC_BANDWIDTH = 0.1, 2.0
_GDM_THRESHOLD = _GDM_BANDWIDTH = 1e-3


def bandwidth(recipe: Recipe, d_model: int) -> float:
    """Return eps, the width of the rectangle, in units of z."""
    return _ANTHROPIC_BANDWIDTH if recipe == "anthropic" else _GDM_BANDWIDTH * math.sqrt(d_model)


def first_threshold(recipe: Recipe, d_model: int) -> float:
    """Return the threshold that training starts with."""
    return _ANTHROPIC_THRESHOLD if recipe == "anthropic" else _GDM_THRESHOLD * math.sqrt(d_model)


class _Feature(NamedTuple):
    """What z is seen with: of each feature ([F]), or of each entry ([N]). `l0` and `pre` are weights in the loss."""

    theta: Tensor
    norm: Tensor
    l0: float
    pre: float
    eps: float
    recipe: Recipe

    def of(self, features_N: Tensor) -> _Feature:
        return self._replace(theta=self.theta[features_N], norm=self.norm[features_N])


class _Entries(NamedTuple):
    """Gradients by z, t and the decoder's norm, and the penalty, of each entry."""

    dz: Tensor
    dt: Tensor
    dnorm: Tensor
    penalty: Tensor


def loss_and_gradients(x_BD: Tensor, weights: Weights, l0_coeff: float, batch: Batch, recipe: Recipe) -> Step:
    """Forward and backward of one batch, by hand.

    Args:
        x_BD: normalised activations of this rank.
        weights: in float32 (float64 for oracles), with `log_threshold_F`.
        l0_coeff: sparsity coefficient of this step.
        batch: what the rows are a share of.
        recipe: see the module.

    """
    if weights.log_threshold_F is None:
        raise ValueError("these are not the weights of a JumpReLU SAE: log_threshold is missing")
    d_model, dtype = x_BD.shape[1], batch.dtype
    pre = PRE_ACTIVATION / d_model if recipe == "anthropic" else 0.0
    feature = _Feature(
        weights.log_threshold_F.exp(),
        decoder_norms(weights),
        l0_coeff / batch.total_rows,
        pre / batch.total_rows,
        bandwidth(recipe, d_model),
        recipe,
    )
    mean = 1 / (batch.total_rows * d_model)
    W_DF, b_F = weights.W_enc_FD.to(dtype).T, weights.b_enc_F.to(dtype)

    def backward(rows_BD: Tensor) -> Part:
        x_centred_BD = rows_BD - weights.b_dec_D
        z_BF = torch.addmm(b_F, x_centred_BD.to(dtype), W_DF)
        matters_BF = z_BF > feature.theta - feature.eps / 2
        few = matters_BF.sum(dtype=torch.int32) < SPARSE_BELOW * z_BF.numel()
        if few:
            code = Code.of(z_BF, matters_BF, rows_BD.dtype)
            part = _sparse(code, x_centred_BD, weights, feature, mean, batch.shard)
        else:
            part = _dense(z_BF.to(rows_BD.dtype), x_centred_BD, weights, feature, mean, batch)
        return _with_pre_activation(part, x_centred_BD, weights, feature) if pre else part

    return sliced_step(x_BD, weights, backward)


def _entries(z: Tensor, f: Tensor, df: Tensor, feature: _Feature) -> _Entries:
    """Return what entries add; `df` is the gradient by f that reconstruction has."""
    theta, norm, l0, pre, eps, recipe = feature
    above, near = (f > 0).to(z.dtype), ((z - theta).abs() < eps / 2).to(z.dtype)
    if recipe == "gdm":
        dtheta = near * (theta * df + l0) / -eps
        return _Entries(df * above, theta * dtheta, torch.zeros_like(z), l0 * above)
    tanh = torch.tanh(TANH_SCALE * f * norm)
    slope = l0 * TANH_SCALE * (1 - tanh.square())
    df = df + slope * norm
    # the pre-activation loss of all entries, taken back for those above theta
    back = pre * above
    return _Entries(
        dz=(df + pre * norm) * above,
        dt=near * theta * df / -eps - back * theta * norm,
        dnorm=slope * f - back * (theta - z),
        penalty=l0 * tanh - back * (theta - z) * norm,
    )


def _with_pre_activation(part: Part, x_centred_BD: Tensor, weights: Weights, feature: _Feature) -> Part:
    """Add the pre-activation loss as if every entry were below theta."""
    pre_F, x_D, rows = feature.pre * feature.norm, x_centred_BD.sum(0), len(x_centred_BD)
    below_F = rows * (feature.theta - weights.b_enc_F) - weights.W_enc_FD @ x_D
    gradients = part.gradients
    gradients.W_enc_FD.addr_(pre_F, x_D, alpha=-1)
    gradients.b_enc_F.sub_(pre_F, alpha=rows)
    gradients.b_dec_D.add_(pre_F @ weights.W_enc_FD, alpha=rows)
    if gradients.log_threshold_F is not None and part.turn_F is not None:
        gradients.log_threshold_F.addcmul_(pre_F, feature.theta, value=rows)
        part.turn_F.add_(below_F, alpha=feature.pre)
    part.loss.add_(pre_F @ below_F)
    return part


def _sparse(code: Code, x_centred_BD: Tensor, weights: Weights, feature: _Feature, mean: float, shard: Shard) -> Part:
    """Backward of a slice in which few entries matter: those of `code`, whose values are z."""
    own = feature.of(code.features_N)
    z_N = code.values_N
    f = Code(code.offsets_B1, code.features_N, torch.where(z_N > own.theta, z_N, 0.0))
    e_BD = x_centred_BD - shard.sum(decode(f, weights.W_dec_FD))
    g_BD = e_BD * (-2 * mean)
    entries = _entries(z_N, f.values_N, dots(code, g_BD, weights.W_dec_FD), own)
    by_feature = ByFeature(code, len(weights.b_enc_F))
    ones_B1 = torch.ones_like(x_centred_BD[:, :1])
    db_enc_F, dt_F, turn_F, activation_F = (
        by_feature.sum(values_N, ones_B1).squeeze(1) for values_N in (entries.dz, entries.dt, entries.dnorm, f.values_N)
    )
    gradients = Weights(
        W_enc_FD=by_feature.sum(entries.dz, x_centred_BD),
        b_enc_F=db_enc_F,
        W_dec_FD=by_feature.sum(f.values_N, g_BD),
        b_dec_D=b_dec_gradient(g_BD, db_enc_F, weights, shard),
        log_threshold_F=dt_F,
    )
    squared_error = shard.once(e_BD.square().sum())
    loss = squared_error * mean + entries.penalty.sum()
    return Part(gradients, loss, squared_error, (f.values_N > 0).sum(), activation_F, turn_F)


def _dense(z_BF: Tensor, x_centred_BD: Tensor, weights: Weights, feature: _Feature, mean: float, batch: Batch) -> Part:
    """Backward of any slice, by products in the batch's dtype."""
    dtype, shard = batch.dtype, batch.shard
    f_BF = torch.where(z_BF > feature.theta, z_BF, 0.0)
    e_BD = x_centred_BD - shard.sum(product(f_BF, weights.W_dec_FD, dtype))
    g_BD = e_BD * (-2 * mean)
    entries = _entries(z_BF, f_BF, product(g_BD, weights.W_dec_FD.T, dtype), feature)
    db_enc_F, dt_F, turn_F, activation_F = (by_BF.sum(0) for by_BF in (entries.dz, entries.dt, entries.dnorm, f_BF))
    gradients = Weights(
        W_enc_FD=product(entries.dz.T, x_centred_BD, dtype),
        b_enc_F=db_enc_F,
        W_dec_FD=product(f_BF.T, g_BD, dtype),
        b_dec_D=b_dec_gradient(g_BD, db_enc_F, weights, shard),
        log_threshold_F=dt_F,
    )
    squared_error = shard.once(e_BD.square().sum())
    loss = squared_error * mean + entries.penalty.sum()
    return Part(gradients, loss, squared_error, (f_BF > 0).sum(), activation_F, turn_F)
