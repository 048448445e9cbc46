"""What an SAE is, apart from its weights: the architecture and its sizes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kubesae.experiment import Section


class SaeConfig(Section):
    """Architecture and sizes. It is stored in `metadata.json` beside the weights, as key `config`."""

    architecture: Literal["relu", "topk", "batchtopk"] = Field(
        description="relu: ReLU + L1; topk: TopK; batchtopk: BatchTopK, used with a threshold"
    )
    d_model: int = Field(gt=0, description="width of the activations")
    d_sae: int = Field(gt=0, description="number of features")
    k: int | None = Field(None, gt=0, description="active features per row, on average for batchtopk (not of relu)")
