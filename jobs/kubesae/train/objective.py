"""What a learner minimises, by architecture: one step's forward and backward pass, and the loss of validation rows.

B = rows of this rank's share of a batch, D = d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.sae import batchtopk, gated, jumprelu, relu, topk
from kubesae.sae.auxk import AuxK
from kubesae.train.settings import unit_decoder

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.experiment import Sae as Settings
    from kubesae.sae import SaeConfig, Sums, Weights
    from kubesae.sae.step import Batch, Step


@dataclass(frozen=True, slots=True)
class Now:
    """What a step's schedules and counters say.

    Attributes:
        coefficient: sparsity coefficient (architectures without k).
        k: active features of a row, None without k.
        dead_A: numbers of this rank's features that AuxK revives.
        dead: how many there are on all ranks.

    """

    coefficient: float
    k: int | None
    dead_A: Tensor
    dead: int


def forward_backward(
    x_BD: Tensor, weights: Weights, config: SaeConfig, settings: Settings, now: Now, batch: Batch
) -> tuple[Step, float | None]:
    """Return the step of normalised rows, and the batch's cutoff where there is one."""
    if now.k is not None:
        auxk = AuxK(settings.auxk_coeff, now.dead_A, now.dead, settings.k_aux or settings.k)
        if config.solves_threshold:
            return batchtopk.loss_and_gradients(x_BD, weights, now.k, auxk, batch, config.prefixes)
        return topk.loss_and_gradients(x_BD, weights, now.k, auxk, batch), None
    if config.architecture == "gated":
        return gated.loss_and_gradients(x_BD, weights, now.coefficient, batch), None
    if config.architecture == "jumprelu":
        recipe = settings.jumprelu_recipe
        return jumprelu.loss_and_gradients(x_BD, weights, now.coefficient, batch, recipe), None
    unit = unit_decoder(settings)
    return relu.loss_and_gradients(x_BD, weights, now.coefficient, batch, unit_decoder=unit), None


def validation_loss(sums: Sums, penalty: Tensor, config: SaeConfig, coefficient: float) -> float:
    """Return the squared error of validation rows and what their sparsity costs; auxiliary losses are no part of it.

    Args:
        sums: over the rows.
        penalty: sum over them of f_i |W_dec_i|, which is the penalty of relu, and nearly that of gated.
        config: the architecture.
        coefficient: the full sparsity coefficient.

    """
    if config.k is not None:
        return sums.mse()
    if config.architecture == "jumprelu":
        return sums.mse() + coefficient * sums.l0()
    return sums.mse() + relu.penalty_weight(coefficient, config.d_model) * float(penalty / sums.rows)
