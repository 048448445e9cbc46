"""Adam (arXiv 1412.6980) with its state in the open, so that a checkpoint stores plain tensors.

It is torch's own fused step, one pass over the weights, called as a function: the optimiser class around it takes
seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.optim.adam import adam

from kubesae.sae.gradients import no_gradients

if TYPE_CHECKING:
    from kubesae.sae import Weights

# Gradients are small (means over rows and dimensions), and those of rare features smaller still: beside Adam's usual
# 1e-8 their steps would shrink. The value is that of arXiv 2406.04093, appendix A.
_EPSILON = 6.25e-10


class Adam:
    """Changes weights in place. `moments` and `square_moments` are its state: they have the shapes of the weights."""

    def __init__(self, weights: Weights) -> None:
        """Prepare to change `weights` in place."""
        self._weights = weights
        self.moments = no_gradients(weights)
        self.square_moments = no_gradients(weights)
        self.start_at(0)

    def start_at(self, steps: int) -> None:
        """Set how many steps have been taken."""
        self._steps = [torch.tensor(float(steps), device=tensor.device) for tensor in self._weights]

    def step(self, gradients: Weights, lr: float) -> None:
        """Take one step."""
        adam(
            list(self._weights),
            list(gradients),
            list(self.moments),
            list(self.square_moments),
            [],
            self._steps,
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=lr,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )
