"""Random SAEs in float64 and their rows, AuxK by autograd, and gradients compared with autograd's.

Written for reading, with dense tensors and masks; it shares no code with the package.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from kubesae.sae import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

COEFFICIENT = 1 / 32


def rows_and_weights(rows: int, d_model: int, features: int, seed: int = 0) -> tuple[torch.Tensor, Weights]:
    """Draw rows with a mean, and weights whose decoder has unit rows."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    decoder_FD = randn(features, d_model)
    decoder_FD /= decoder_FD.norm(dim=1, keepdim=True)
    weights = Weights(randn(features, d_model), 0.3 * randn(features), decoder_FD, 0.2 * randn(d_model))
    return randn(rows, d_model) + 0.5, weights


def leaves_of(weights: Weights) -> list[torch.Tensor]:
    """Copy the weights for autograd."""
    return [tensor.clone().requires_grad_() for tensor in weights]


def auxk_loss(
    x: torch.Tensor, x_hat: torch.Tensor, z: torch.Tensor, W_dec: torch.Tensor, dead: Sequence[int], coefficient: float
) -> torch.Tensor:
    """The auxiliary loss, for k_aux = 4."""
    if not dead or not coefficient:
        return torch.zeros((), dtype=torch.float64)
    e = (x - x_hat).detach()
    living = torch.ones(z.shape[1], dtype=torch.bool)
    living[list(dead)] = False
    top = z.masked_fill(living, -math.inf).topk(min(4, len(dead)), dim=1)
    f_dead = torch.zeros_like(z).scatter(1, top.indices, top.values.relu())
    ratio = (e - f_dead @ W_dec).square().sum() / (e - e.mean(0)).square().sum()
    return coefficient * min(len(dead) / 4, 1.0) * ratio


def assert_gradients(mine: Weights, expected: Sequence[torch.Tensor | None]) -> None:
    """Compare gradients tensor by tensor."""
    for (name, left), right in zip(mine.named().items(), expected, strict=True):
        torch.testing.assert_close(left, right, msg=lambda text, name=name: f"{name}: {text}")
