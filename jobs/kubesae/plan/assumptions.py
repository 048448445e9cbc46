"""What a plan takes for granted: each number that is neither in experiment, config nor price file.

Each can be set: `kubesae plan experiment.yaml --set matmul_share_moe=0.25`.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kubesae.errors import ConfigError
from kubesae.experiment import Section, parse_yaml, validate

if TYPE_CHECKING:
    from collections.abc import Iterable


class Assumptions(Section):
    """The numbers, with where they come from. Shares are of 1."""

    matmul_share_dense: float = Field(
        0.4,
        gt=0,
        le=1,
        description="share of the bf16 peak that a forward pass of a dense model reaches (not measured)",
    )
    matmul_share_moe: float = Field(
        0.3,
        gt=0,
        le=1,
        description="the same of a model with experts: 300 TFLOP/s of an H100; SGLang's DeepSeek-V3 prefill reaches "
        "26% of the FP8 peak (LMSYS, 2025-05-05)",
    )
    matmul_share_sae: float = Field(
        0.4, gt=0, le=1, description="the same of the dense products of SAE training (not measured)"
    )
    reserve_gb: float = Field(2.0, ge=0, description="memory of each GPU that CUDA and the allocator keep, in GB")
    host_share: float = Field(0.85, gt=0, le=1, description="share of host memory that weights and queues may take")
    page_cache_gb_s: float = Field(
        50.0, gt=0, description="streamed: from page cache to pinned memory, GB a second and slot (not measured)"
    )
    block_margin: float = Field(
        2.0, ge=1, description="streamed: a block computes this many times as long as the slowest layer loads"
    )
    upload_gb_s: float = Field(1.0, gt=0, description="to the store, GB a second and slot")
    read_gb_s: float = Field(1.0, gt=0, description="training reads from the store, GB a second and GPU")
    fetch_gb_s: float = Field(
        5.0, gt=0, description="weights from the store to a new node's disk, GB a second and node"
    )
    node_seconds: float = Field(180.0, ge=0, description="until a new node is there, with the image (a guess)")
    start_seconds: float = Field(15.0, ge=0, description="until a program that starts has imported what it runs")
    preemptions_per_day: float = Field(
        1.0, ge=0, description="how often a spot node is taken away in 24 hours (a guess)"
    )
    spot_share: float = Field(
        0.45, gt=0, le=1, description="spot price as a share of the price on demand, where the price file has none"
    )
    months_kept: float = Field(1.0, ge=0, description="how long activations stay in the store")
    sae_l0: float = Field(80.0, gt=0, description="active features a row, for architectures without k")
    train_gpus: int = Field(1, gt=0, description="GPUs that train the SAEs, sharing out the rows")


def assumptions_of(settings: Iterable[str]) -> Assumptions:
    """Return the assumptions with `NAME=VALUE` laid over them.

    Raises:
        ConfigError: one is not of this form, has no such name, or has a value out of range.

    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, not {setting!r}. `kubesae plan --assumptions` lists the names.")
        if name not in Assumptions.model_fields:
            close = difflib.get_close_matches(name, Assumptions.model_fields, n=1)
            hint = f"Did you mean {close[0]}?" if close else "`kubesae plan --assumptions` lists the names."
            raise ConfigError(f"--set {setting}: there is no assumption {name!r}. {hint}")
        values[name] = parse_yaml(f"value: {text}", f"--set {setting}")["value"]
    return validate(Assumptions, values, "--set")
