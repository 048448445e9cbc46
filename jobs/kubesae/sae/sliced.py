"""Steps of architectures whose loss asks for few features: a slice of the rows at a time, dense or sparse.

B = rows, D = d_model, F = features.

At the start about half of all entries are active, so products are dense; later few are, and only those are looked at.
How many entries a row has follows from the loss, so z of a whole batch would not fit into memory: slices bound it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch

from kubesae.sae.gradients import add_gradients
from kubesae.sae.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kubesae.sae.weights import Weights

# Below this share of entries that matter, sparse products are faster than dense ones.
SPARSE_BELOW = 1 / 16
# A batch is worked through in slices of this many entries: they bound memory, and fit a CPU's cache.
_SLICE = 1 << 23
_SLICE_DEVICE = 1 << 29


@dataclass(frozen=True, slots=True)
class Part:
    """Sums over the rows of a slice.

    Attributes:
        gradients: of the loss, but for what it has by the norms of the decoder's rows.
        loss: the slice's share of it.
        squared_error: sum over rows and dimensions of (x - x_hat)^2.
        active: entries of f above 0.
        activation_F: sum of f, [F].
        turn_F: gradient of the loss by the norm of each row of W_dec, [F]; None where it has none.

    """

    gradients: Weights
    loss: Tensor
    squared_error: Tensor
    active: Tensor
    activation_F: Tensor
    turn_F: Tensor | None = None

    def add(self, other: Part) -> Part:
        """Return the sums over both; this one's gradients are overwritten."""
        add_gradients(self.gradients, other.gradients)
        return Part(
            self.gradients,
            self.loss + other.loss,
            self.squared_error + other.squared_error,
            self.active + other.active,
            self.activation_F + other.activation_F,
            None if self.turn_F is None or other.turn_F is None else self.turn_F + other.turn_F,
        )


def sliced_step(x_BD: Tensor, weights: Weights, backward: Callable[[Tensor], Part]) -> Step:
    """Return the step of rows [B, D], of whose slices `backward` gives the sums."""
    limit = _SLICE if x_BD.device.type == "cpu" else _SLICE_DEVICE
    slices = x_BD.split(max(1, limit // len(weights.b_enc_F)))
    total = reduce(Part.add, map(backward, slices))
    if total.turn_F is not None:  # d |W_i| / d W_i = W_i / |W_i|
        turn_F = total.turn_F / decoder_norms(weights).clamp_min(1e-30)
        total.gradients.W_dec_FD.addcmul_(weights.W_dec_FD, turn_F[:, None])
    return Step(total.gradients, total.loss, total.squared_error, total.active, total.activation_F > 0)


def decoder_norms(weights: Weights) -> Tensor:
    """Return the norms [F] of the decoder's rows."""
    norm_F: Tensor = torch.linalg.vector_norm(weights.W_dec_FD, dim=1)
    return norm_F
