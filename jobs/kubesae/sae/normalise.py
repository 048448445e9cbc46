"""Normalisation of activations: a mean and one scalar, fixed before training and stored in every checkpoint.

B = rows, D = d_model, F = features.

    normalised = (x - mean) * scale        scale: such that normalised^2 is 1 on average over the sample and dimensions

So an error of the normalised values averaged over rows and dimensions *is* the fraction of variance unexplained, and a
learning rate, an l1 coefficient or a coefficient of AuxK means the same for every model and layer. The mean is
subtracted because residual streams have a large one in a few dimensions, which predicts dead features. One scalar, not
one a dimension: the error in raw units stays the same objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.errors import DamagedError
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Normaliser:
    """`mean_D`: float32 [d_model], in raw units. `scale`: normalised per raw unit."""

    mean_D: Tensor
    scale: float

    @classmethod
    def fit(cls, sample_SD: Tensor) -> Normaliser:
        """Fit to float32 raw activations [rows, d_model], sums in float64.

        Raises:
            DamagedError: the rows are all equal, or not finite.

        """
        rows = sample_SD.double()
        mean_D = rows.mean(0).to(torch.float32)
        square = float((rows - mean_D.double()).square().mean())
        if not 0 < square < float("inf"):
            raise DamagedError(
                f"The {len(sample_SD)} sampled activations have a variance of {square}: they cannot be normalised. "
                "Run `kubesae verify --mode full` to see whether the data is damaged."
            )
        return cls(mean_D, square**-0.5)

    def to(self, device: torch.device | str) -> Normaliser:
        """Copy to a device."""
        return Normaliser(self.mean_D.to(device), self.scale)

    def apply(self, x_BD: Tensor) -> Tensor:
        """Return normalised float32 values of raw `x_BD` in any float dtype."""
        return torch.sub(x_BD, self.mean_D).mul_(self.scale)


def fold_threshold(threshold_F: Tensor, weights: Weights, normaliser: Normaliser) -> Tensor:
    """Return the thresholds [F] of folded weights that are `threshold_F` of `weights`."""
    return threshold_F * _row_norms(weights) / normaliser.scale


def fold(weights: Weights, normaliser: Normaliser) -> Weights:
    """Return weights that do the same to raw activations, with decoder rows of norm 1.

    With r_i = |W_dec_i|: the folded f_i is r_i / scale times the trained one, so a feature's activation is the length,
    in raw units, of what it adds to the reconstruction, whatever the architecture. The order of features within a row
    changes only where the rows' norms differ (not for TopK, whose rows all have norm 1).
    """
    norm_F = _row_norms(weights)
    return Weights(
        W_enc_FD=weights.W_enc_FD * norm_F[:, None],
        b_enc_F=weights.b_enc_F * norm_F / normaliser.scale,
        W_dec_FD=weights.W_dec_FD / norm_F[:, None],
        b_dec_D=weights.b_dec_D / normaliser.scale + normaliser.mean_D,
    )


def _row_norms(weights: Weights) -> Tensor:
    """Return the norms [F] of the decoder's rows, 1 for rows of zeros."""
    norm_F = torch.linalg.vector_norm(weights.W_dec_FD, dim=1)
    return torch.where(norm_F > 0, norm_F, 1.0)
