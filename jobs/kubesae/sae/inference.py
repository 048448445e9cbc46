"""A trained SAE in the units of raw activations: encode, decode, and both at once.

    from kubesae.sae import load_sae
    sae = load_sae("s3://bucket/experiment/sae/layer-045-relu-57344")
    reconstruction, features = sae(acts)

B = rows, D = d_model, F = features. Decoder rows have norm 1, so a feature's activation is the length of what it adds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kubesae.sae import relu, threshold
from kubesae.sae.kernels import Code, decode
from kubesae.sae.topk import encode as encode_topk

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.config import SaeConfig
    from kubesae.sae.weights import Weights


class Sae:
    """An SAE to use.

    `config`: its architecture and sizes; `weights`: float32; `metadata`: what training recorded; `threshold_F`: float32
    [d_sae], up to which a feature is inactive (not of relu and topk).
    """

    def __init__(
        self,
        config: SaeConfig,
        weights: Weights,
        metadata: dict[str, Any] | None = None,
        threshold_F: Tensor | None = None,
    ) -> None:
        """Wrap weights that are in raw units (`normalise.fold`)."""
        self.config = config
        self.weights = weights
        self.metadata = metadata or {}
        self.threshold_F = threshold_F

    def to(self, device: torch.device | str) -> Sae:
        """Copy to a device."""
        threshold_F = None if self.threshold_F is None else self.threshold_F.to(device)
        return Sae(self.config, self.weights.to(device), self.metadata, threshold_F)

    @torch.no_grad()
    def codes(self, acts_BD: Tensor) -> Code:
        """Return the active features of raw activations [B, d_model], sparse: by row, values above 0 only."""
        x_BD = acts_BD.to(self.weights.b_dec_D.dtype) - self.weights.b_dec_D
        if self.threshold_F is not None:
            return threshold.encode(x_BD, self.weights, self.threshold_F, x_BD.dtype)
        if self.config.k is None:
            return relu.to_code(relu.encode(x_BD, self.weights, x_BD.dtype), x_BD.dtype)
        return encode_topk(x_BD, self.weights, self.config.k, x_BD.dtype).positive()

    @torch.no_grad()
    def encode(self, acts: Tensor) -> Tensor:
        """Return feature activations [..., d_sae] of raw activations [..., d_model] in any float dtype."""
        flat_BD = acts.reshape(-1, acts.shape[-1])
        return self.codes(flat_BD).dense(self.config.d_sae).reshape(*acts.shape[:-1], self.config.d_sae)

    @torch.no_grad()
    def decode(self, features: Tensor) -> Tensor:
        """Return the reconstruction [..., d_model], raw units, of feature activations [..., d_sae]."""
        return features @ self.weights.W_dec_FD + self.weights.b_dec_D

    @torch.no_grad()
    def __call__(self, acts: Tensor) -> tuple[Tensor, Tensor]:
        """Return (reconstruction [..., d_model], features [..., d_sae]) of raw activations [..., d_model]."""
        code = self.codes(acts.reshape(-1, acts.shape[-1]))
        reconstruction_BD = decode(code, self.weights.W_dec_FD) + self.weights.b_dec_D
        features_BF = code.dense(self.config.d_sae)
        return (
            reconstruction_BD.reshape(*acts.shape),
            features_BF.reshape(*acts.shape[:-1], self.config.d_sae),
        )
