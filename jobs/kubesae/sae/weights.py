"""The tensors of an SAE, and how they start.

D = d_model, F = d_sae, S = rows of a sample. Four tensors are those of every SAE; training some architectures needs one
or two more of [F], which become a threshold in the SAE to use (`threshold.in_use`). Both matrices are stored
feature-major ([F, D]): a feature's encoder and decoder row lie together in memory, which is what sparse gathers and
row-wise gradients read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from dataclasses import Field

    from torch import Tensor

    from kubesae.sae.config import SaeConfig

# A free decoder starts with short rows, so that the first reconstructions are small (Anthropic, "Update on how we train
# SAEs", April 2024).
FREE_DECODER_NORM = 0.1
# Measured: docs/decisions.md.
_ENCODER_START = 0.3
_MEDIAN_STEPS = 50


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of an SAE, or gradients of them. What an architecture does not have is None, and left out everywhere.

    Attributes:
        W_enc_FD: encoder, [d_sae, d_model].
        b_enc_F: encoder bias, [d_sae].
        W_dec_FD: decoder, [d_sae, d_model]: row i is the direction that feature i adds.
        b_dec_D: decoder bias, [d_model]. It is subtracted from the input, too.
        log_threshold_F: logarithm of what z has to exceed, [d_sae] (jumprelu).
        r_mag_F: logarithm of the magnitude's encoder over the gate's, [d_sae] (gated).
        b_gate_F: bias of the gate, [d_sae] (gated).

    """

    W_enc_FD: Tensor
    b_enc_F: Tensor
    W_dec_FD: Tensor
    b_dec_D: Tensor
    log_threshold_F: Tensor | None = None
    r_mag_F: Tensor | None = None
    b_gate_F: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the tensors that there are, in the order of `named`."""
        return iter(self.named().values())

    def named(self) -> dict[str, Tensor]:
        """Return the tensors that there are by their names in files: W_enc, b_enc, W_dec, b_dec, log_threshold, ..."""
        return {_name(field): getattr(self, field.name) for field in fields(self) if self._has(field)}

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the tensors that every SAE has: W_enc, b_enc, W_dec, b_dec."""
        return tuple(_name(field) for field in fields(Weights)[:4])

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> Weights:
        """Return weights of which `named` holds the tensors by their names in files."""
        return cls(**{field.name: named[_name(field)] for field in fields(cls) if _name(field) in named})

    def each(self, change: Callable[[Tensor], Tensor], b_dec: Callable[[Tensor], Tensor] | None = None) -> Weights:
        """Return what `change` makes of every tensor that there is, or `b_dec` of the one without a line a feature."""
        changes = {"b_dec_D": b_dec or change}
        return Weights(
            **{
                field.name: changes.get(field.name, change)(getattr(self, field.name))
                for field in fields(self)
                if self._has(field)
            }
        )

    def _has(self, field: Field[Any]) -> bool:
        return getattr(self, field.name) is not None

    def to(self, device: torch.device | str) -> Weights:
        """Copy to a device."""
        return self.each(lambda tensor: tensor.to(device))


def _name(field: Field[Any]) -> str:
    """Return a field's name without its shape."""
    return field.name.rpartition("_")[0]


def no_weights(config: SaeConfig, device: torch.device) -> Weights:
    """Return zeros in the shapes of the weights that training this architecture needs."""

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device=device)

    gated, jumprelu = config.architecture == "gated", config.architecture == "jumprelu"
    return Weights(
        W_enc_FD=zeros(config.d_sae, config.d_model),
        b_enc_F=zeros(config.d_sae),
        W_dec_FD=zeros(config.d_sae, config.d_model),
        b_dec_D=zeros(config.d_model),
        log_threshold_F=zeros(config.d_sae) if jumprelu else None,
        r_mag_F=zeros(config.d_sae) if gated else None,
        b_gate_F=zeros(config.d_sae) if gated else None,
    )


def initial_weights(
    config: SaeConfig,
    sample_SD: Tensor,
    seed: int,
    *,
    decoder_norm: float = 1.0,
    threshold: float = 1.0,
    centre: Literal["median", "mean"] = "median",
    device: torch.device | None = None,
) -> Weights:
    """Weights to start training from: random decoder directions, the encoder tied to them, b_dec the sample's centre.

    The tied encoder and b_dec = the geometric median of a sample are what arXiv 2406.04093 (appendix A) does; without
    the second, inputs with a mean cost many steps. Where k sets L0 the encoder begins as `_ENCODER_START` of the
    decoder: random features that overlap reconstruct too much together, and learn to be smaller before anything else.

    Args:
        config: sizes.
        sample_SD: float32 [rows, d_model], normalised as the training data will be.
        seed: the same seed gives the same weights on every device.
        decoder_norm: of the rows of the decoder.
        threshold: that of every feature (jumprelu).
        centre: what b_dec starts as.
        device: where the weights are to lie; None: where the sample does.

    """
    generator = torch.Generator().manual_seed(seed)
    directions_FD = torch.randn(config.d_sae, config.d_model, generator=generator)
    directions_FD *= decoder_norm / torch.linalg.vector_norm(directions_FD, dim=1, keepdim=True)
    weights = no_weights(config, device or sample_SD.device)
    weights.W_enc_FD.copy_(directions_FD if config.k is None else _ENCODER_START * directions_FD)
    weights.W_dec_FD.copy_(directions_FD)
    weights.b_dec_D.copy_(geometric_median(sample_SD) if centre == "median" else sample_SD.double().mean(0))
    if weights.log_threshold_F is not None:
        weights.log_threshold_F.fill_(math.log(threshold))
    return weights


def geometric_median(sample_SD: Tensor, tolerance: float = 1e-5) -> Tensor:
    """Return the point [d_model] with the least sum of distances to the rows of `sample_SD`.

    Weiszfeld's iteration from the mean: each step is the mean weighted by 1 / distance. Unlike the mean it does not
    follow a few rows with huge norms.
    """
    rows = sample_SD.double()
    median_D = rows.mean(0)
    floor = 1e-12 * rows.square().mean().sqrt().clamp_min(1e-300)
    for _ in range(_MEDIAN_STEPS):
        weight_S1 = 1 / torch.linalg.vector_norm(rows - median_D, dim=1, keepdim=True).clamp_min(floor)
        step_D = (rows * weight_S1).sum(0) / weight_S1.sum()
        moved = torch.linalg.vector_norm(step_D - median_D)
        median_D = step_D
        if moved <= tolerance * torch.linalg.vector_norm(median_D):
            break
    return median_D.to(sample_SD.dtype)
