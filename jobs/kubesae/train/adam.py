"""Adam (arXiv 1412.6980) with its state in the open, so that a checkpoint stores plain tensors.

One pass over a matrix does all that a step does to it: it clips, leaves out of the decoder's gradient the part along
each row where rows keep norm 1, takes Adam's step and restores the norm (arXiv 2406.04093, appendix A). The part along
a row would only change its norm: it goes before Adam, so that the moments do not fill with what the norm undoes; the
norm is restored after, because the step leaves the sphere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.optim.adam import adam

from kubesae.sae.backend import backend_for
from kubesae.sae.gradients import no_gradients
from kubesae.sae.shard import alone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.sae import Weights
    from kubesae.sae.shard import Reduce

# Where every row has few features from the start (k), they are active in few rows of a batch: with the usual betas they
# go on where they no longer are, and their steps stay as small as their first gradients were large. Measured in
# docs/decisions.md. Sparsity that a loss has to bring about wants the usual ones, which its units were found with.
BETAS, BETAS_OF_K = (0.9, 0.999), (0.5, 0.95)
# Gradients are small (means over rows and dimensions), and those of rare features smaller still: beside Adam's usual
# 1e-8 their steps would shrink. The value is that of arXiv 2406.04093, appendix A.
EPSILON = 6.25e-10


class Adam:
    """Changes weights in place. `moments` and `square_moments` are its state: they have the shapes of the weights."""

    def __init__(
        self,
        weights: Weights,
        *,
        unit_decoder: bool,
        betas: tuple[float, float] = BETAS,
        sum_shards: Reduce = alone,
    ) -> None:
        """Prepare to change `weights` in place.

        Args:
            weights: of all features or of a shard's.
            unit_decoder: rows of the decoder keep norm 1.
            betas: of the means of gradients and of their squares.
            sum_shards: sums a tensor over the shards.

        """
        self._betas = betas
        self._sum_shards = sum_shards
        self._weights = weights
        self._unit_decoder = unit_decoder
        self.moments = no_gradients(weights)
        self.square_moments = no_gradients(weights)
        self.start_at(0)

    def start_at(self, steps: int) -> None:
        """Set how many steps have been taken."""
        self._steps = steps

    def step(self, gradients: Weights, lr: float, largest: float) -> float:
        """Take one step, and return the norm of the gradient by all features; above `largest` it is cut to that.

        `gradients` may be overwritten.
        """
        squares, along_F, shared = [], None, torch.zeros(())
        for weight, gradient in zip(self._weights, gradients, strict=True):
            if self._unit_decoder and weight is self._weights.W_dec_FD:
                square_F, along_F = _row_statistics(gradient, weight)
                square_F = square_F - along_F.square()  # rows have norm 1
            else:
                square_F = _squares(gradient)
            square = square_F.sum(dtype=torch.float64)
            if weight is self._weights.b_dec_D:  # every shard has it
                shared = square
            else:
                squares.append(square)
        norm = math.sqrt(max(0.0, float(self._sum_shards(torch.stack(squares).sum()) + shared)))
        self._steps += 1
        for weight, gradient, *moments in zip(self._weights, gradients, self.moments, self.square_moments, strict=True):
            unit_F = along_F if weight is self._weights.W_dec_FD else None
            if norm > largest:
                for cut in (gradient, unit_F):
                    if cut is not None:
                        cut.mul_(largest / norm)
            self._change(weight, gradient, moments, unit_F, lr)
        return norm

    def _change(
        self, weight: Tensor, gradient: Tensor, moments: Sequence[Tensor], along_F: Tensor | None, lr: float
    ) -> None:
        """Take the step of one tensor; `along_F` is that of rows which keep norm 1."""
        moment, square_moment = moments
        backend = backend_for(weight, gradient, *moments) if weight.dim() > 1 else None
        if backend is not None:
            backend.adam_step(
                weight,
                gradient,
                moment,
                square_moment,
                along_F,
                rate=lr / (1 - self._betas[0] ** self._steps),
                betas=self._betas,
                epsilon=EPSILON,
                correct=1 / math.sqrt(1 - self._betas[1] ** self._steps),
            )
            return
        if along_F is not None:
            gradient.addcmul_(weight, along_F[:, None], value=-1)
        # torch's own fused step, called as a function: the optimiser class around it takes seconds to import
        adam(
            [weight],
            [gradient],
            [moment],
            [square_moment],
            [],
            [torch.tensor(float(self._steps - 1), device=weight.device)],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        if along_F is not None:
            weight.div_(torch.linalg.vector_norm(weight, dim=1, keepdim=True))


def _squares(gradient: Tensor) -> Tensor:
    """Return |g_f|^2 of each row, or of all where there are no rows."""
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=-1)
    return norms.square()


def _row_statistics(gradient_FD: Tensor, weight_FD: Tensor) -> tuple[Tensor, Tensor]:
    """Return |g_f|^2 and g_f . w_f of each row, both [F]."""
    if (backend := backend_for(gradient_FD, weight_FD)) is not None:
        return backend.row_statistics(gradient_FD, weight_FD)
    along_F: Tensor = torch.linalg.vecdot(gradient_FD, weight_FD)
    return _squares(gradient_FD), along_F
