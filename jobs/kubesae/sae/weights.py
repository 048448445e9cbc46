"""The four tensors of an SAE, and how they start.

D = d_model, F = d_sae, S = rows of a sample. Both matrices are stored feature-major ([F, D]): a feature's encoder and
decoder row lie together in memory, which is what sparse gathers and row-wise gradients read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kubesae.sae.config import SaeConfig

# A free decoder starts with short rows, so that the first reconstructions are small (Anthropic, "Update on how we train
# SAEs", April 2024); those of TopK and BatchTopK have norm 1 throughout (arXiv 2406.04093).
_RELU_DECODER_NORM = 0.1
_MEDIAN_STEPS = 50


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of an SAE, or gradients of them.

    Attributes:
        W_enc_FD: encoder, [d_sae, d_model].
        b_enc_F: encoder bias, [d_sae].
        W_dec_FD: decoder, [d_sae, d_model]: row i is the direction that feature i adds.
        b_dec_D: decoder bias, [d_model]. It is subtracted from the input, too.

    """

    W_enc_FD: Tensor
    b_enc_F: Tensor
    W_dec_FD: Tensor
    b_dec_D: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the tensors in the order of `names`."""
        return iter((self.W_enc_FD, self.b_enc_F, self.W_dec_FD, self.b_dec_D))

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the tensors in files: W_enc, b_enc, W_dec, b_dec."""
        return tuple(field.name.rpartition("_")[0] for field in fields(Weights))

    def to(self, device: torch.device | str) -> Weights:
        """Copy to a device."""
        return Weights(*(tensor.to(device) for tensor in self))


def initial_weights(config: SaeConfig, sample_SD: Tensor, seed: int) -> Weights:
    """Weights to start training from: random decoder directions, the encoder tied to them, b_dec the sample's centre.

    W_enc = W_dec at the start and b_dec = the geometric median of a sample are what arXiv 2406.04093 (appendix A) does;
    without the second, inputs with a mean cost many steps.

    Args:
        config: sizes.
        sample_SD: float32 [rows, d_model], normalised as the training data will be.
        seed: the same seed gives the same weights on every device.

    """
    generator = torch.Generator().manual_seed(seed)
    directions_FD = torch.randn(config.d_sae, config.d_model, generator=generator)
    norm = _RELU_DECODER_NORM if config.architecture == "relu" else 1.0
    directions_FD *= norm / torch.linalg.vector_norm(directions_FD, dim=1, keepdim=True)
    device = sample_SD.device
    return Weights(
        W_enc_FD=directions_FD.clone().to(device),
        b_enc_F=torch.zeros(config.d_sae, device=device),
        W_dec_FD=directions_FD.to(device),
        b_dec_D=geometric_median(sample_SD),
    )


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
