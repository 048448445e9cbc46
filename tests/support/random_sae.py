"""Random SAEs of every architecture, as `load_sae` would give them, and what other libraries' formulas make of rows."""

from __future__ import annotations

from typing import Any

import torch

from kubesae.sae import Sae, SaeConfig, Weights
from kubesae.sae.formats.format import architectures

ARCHITECTURES = architectures()


def random_sae(
    architecture: str, d_model: int = 6, d_sae: int = 16, k: int = 4, seed: int = 0, *, same: bool = False
) -> Sae:
    """Draw an SAE in raw units, with a large b_dec; `same`: of one threshold for all features."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    decoder_FD = torch.nn.functional.normalize(randn(d_sae, d_model))
    weights = Weights(randn(d_sae, d_model), 0.3 * randn(d_sae), decoder_FD, 3 * randn(d_model))
    fields: dict[str, Any] = {"architecture": architecture, "d_model": d_model, "d_sae": d_sae}
    if architecture in {"topk", "batchtopk", "matryoshka"}:
        fields["k"] = k
    if architecture == "matryoshka":
        fields["prefixes"] = tuple(sorted({max(1, d_sae // 4), d_sae}))
    config = SaeConfig.model_validate(fields)
    threshold_F = None
    if config.has_threshold:
        threshold_F = torch.full((d_sae,), 0.4) if same else randn(d_sae).abs()
    return Sae(config, weights, {"layer": 4, "model": "some/model", "name": "random"}, threshold_F)


def random_rows(sae: Sae, rows: int = 50, seed: int = 1) -> torch.Tensor:
    """Draw float32 rows around b_dec, so that features are active about as often as not."""
    generator = torch.Generator().manual_seed(seed)
    return sae.weights.b_dec_D + torch.randn(rows, sae.config.d_model, generator=generator)


def assert_same_function(one: Sae, other: Sae, scale_F: torch.Tensor | float = 1.0, tolerance: float = 1e-5) -> None:
    """Compare features (those of `other` are `scale_F` times as large) and reconstructions, relative to the largest."""
    x = random_rows(one)
    (x_hat, f), (other_x_hat, other_f) = one(x), other(x)
    assert (f > 0).any()
    for left, right in ((f * scale_F, other_f), (x_hat, other_x_hat)):
        assert float((left - right).abs().max()) <= tolerance * float(left.abs().max())
