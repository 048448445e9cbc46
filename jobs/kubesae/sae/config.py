"""What an SAE is, apart from its weights: the architecture and its sizes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kubesae.experiment import Section


class SaeConfig(Section):
    """Architecture and sizes. It is stored in `metadata.json` beside the weights, as key `config`."""

    architecture: Literal["relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"] = Field(
        description="relu: ReLU + L1; topk: TopK; batchtopk: BatchTopK; matryoshka: BatchTopK with nested prefixes; "
        "jumprelu: JumpReLU; gated: Gated; the last four are used with a threshold"
    )
    d_model: int = Field(gt=0, description="width of the activations")
    d_sae: int = Field(gt=0, description="number of features")
    k: int | None = Field(
        None,
        gt=0,
        description="active features per row, on average with a threshold (topk, batchtopk and matryoshka only)",
    )
    prefixes: tuple[int, ...] | None = Field(
        None, description="numbers of features that reconstruct without the others, ascending (matryoshka only)"
    )

    @property
    def has_threshold(self) -> bool:
        """Whether an SAE in use has thresholds."""
        return self.solves_threshold or self.architecture in {"jumprelu", "gated"}

    @property
    def solves_threshold(self) -> bool:
        """Whether its threshold is one for all features, solved for an L0 of k after training."""
        return self.architecture in {"batchtopk", "matryoshka"}
