"""Decoder rows of norm 1: what every architecture whose L0 is set by k keeps up (arXiv 2406.04093, appendix A)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from kubesae.sae.weights import Weights


def project_decoder_gradient(gradients: Weights, weights: Weights) -> None:
    """Remove from the decoder's gradient, in place, the part along each row: it would only change the row's norm.

    Before Adam, so that its moments do not fill with directions that the norm constraint undoes.
    """
    along_F = torch.linalg.vecdot(gradients.W_dec_FD, weights.W_dec_FD)
    gradients.W_dec_FD.addcmul_(weights.W_dec_FD, along_F[:, None], value=-1)


def normalise_decoder(weights: Weights) -> None:
    """Give every row of the decoder norm 1, in place. After the optimiser's step, which leaves the sphere."""
    weights.W_dec_FD.div_(torch.linalg.vector_norm(weights.W_dec_FD, dim=1, keepdim=True))
