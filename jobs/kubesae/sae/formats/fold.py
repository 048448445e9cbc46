"""From other conventions to ours, exactly: which bias is subtracted, how long decoder rows are, gates, thresholds.

D = d_model, F = features. Ours: f = act((x - b_dec) W_enc^T + b_enc), x_hat = f W_dec + b_dec, decoder rows of norm 1,
and where act has a threshold, f = z where z > threshold, else 0, with thresholds of 0 or more.

All of it is computed in float64 and rounded once, so that what comes out differs by the rounding of float32 alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

# Decoder rows whose norm is 1 up to this are left as they are: they were 1 before rounding, and an import is the same
# bits. (dictionary-learning takes what differs by 1e-5 for 1.)
ROUNDING = 5e-6


def subtract_b_dec(weights: Weights) -> Weights:
    """Return weights that subtract b_dec from the input, of some that do not: f = act(x W_enc^T + b_enc)."""
    shift_F = weights.W_enc_FD.double() @ weights.b_dec_D.double()
    return Weights(weights.W_enc_FD, (weights.b_enc_F.double() + shift_F).float(), weights.W_dec_FD, weights.b_dec_D)


def leave_b_dec(weights: Weights) -> Tensor:
    """Return b_enc [F] of the same SAE where b_dec is not subtracted from the input."""
    return (weights.b_enc_F.double() - weights.W_enc_FD.double() @ weights.b_dec_D.double()).float()


def norms(weights: Weights) -> Tensor:
    """Return the norms [F] of the decoder's rows, float64."""
    norm_F: Tensor = torch.linalg.vector_norm(weights.W_dec_FD.double(), dim=1)
    return norm_F


def are_unit(norm_F: Tensor) -> bool:
    """Whether all rows have norm 1, or are zero as those of features that were never used."""
    return bool(((norm_F - 1).abs() <= ROUNDING).logical_or(norm_F == 0).all())


def unit_rows(weights: Weights, threshold_F: Tensor | None = None) -> tuple[Weights, Tensor | None]:
    """Return weights and thresholds of the same SAE with decoder rows of norm 1; its features are as many times larger.

    Exact where a feature is active by its own z alone, as with ReLU and thresholds. Which are the k largest of a row
    may change: see `kept_rows`.
    """
    norm_F = norms(weights)
    if are_unit(norm_F):
        return weights, threshold_F
    norm_F = torch.where(norm_F > 0, norm_F, 1.0)
    folded = Weights(
        (weights.W_enc_FD.double() * norm_F[:, None]).float(),
        (weights.b_enc_F.double() * norm_F).float(),
        (weights.W_dec_FD.double() / norm_F[:, None]).float(),
        weights.b_dec_D,
    )
    return folded, None if threshold_F is None else (threshold_F.double() * norm_F).float()


def kept_rows(weights: Weights) -> tuple[str, ...]:
    """Return what to say of a TopK SAE whose decoder rows are not of norm 1: they stay, nothing is folded."""
    norm_F = norms(weights)
    if are_unit(norm_F):
        return ()
    note = (
        f"Its decoder rows have norms from {float(norm_F.min()):.4g} to {float(norm_F.max()):.4g}. They stay so: which "
        "features are the k largest depends on them. So an activation is not the length of what it adds."
    )
    return (note,)


def ungate(W_gate_FD: Tensor, b_gate_F: Tensor, r_mag_F: Tensor, b_mag_F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return W_enc, b_enc and thresholds [F] of a gated SAE (arXiv 2404.16014) that shares its encoder's directions.

    It gives ReLU(z) with z = exp(r) (W x) + b_mag where the gate W x + b_gate is above 0. With exp(r) > 0 that is where
    z > b_mag - exp(r) b_gate, so it is z above the larger one of that and 0.
    """
    scale_F = r_mag_F.double().exp()
    threshold_F = (b_mag_F.double() - scale_F * b_gate_F.double()).clamp_min(0)
    return (W_gate_FD.double() * scale_F[:, None]).float(), b_mag_F, threshold_F.float()
