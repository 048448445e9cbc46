"""Advice: its limits, with the run's own numbers."""

from __future__ import annotations

from typing import Any

import pytest

from kubesae.experiment import Sae as Settings
from kubesae.sae import SaeConfig
from kubesae.train.advice import advise

RELU = SaeConfig(architecture="relu", d_model=8, d_sae=64)
TOPK = SaeConfig(architecture="topk", d_model=8, d_sae=64, k=12)


def advice(config: SaeConfig = RELU, l1_coeff: float = 1e-3, target_l0: float | None = None, **metrics: Any) -> str:
    measured = {"l0": 70.0, "mse": 0.007, "fvu": 0.0071, "dead_share": 0.0} | metrics
    settings = Settings(architecture=config.architecture, l1_coeff=l1_coeff, target_l0=target_l0)
    return " ".join(advise(config, settings, measured, l1_coeff))


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"l0": 151.2}, "L0 is 151.2, over 150: raise --l1-coeff from 0.001 to 0.003."),
        ({"l0": 29.0}, "L0 is 29.0, under 30: lower --l1-coeff from 0.001 to 0.0003."),
        ({"l0": 70.0}, "in the usual 50 to 100"),
        ({"l0": 120.0}, "near the usual 50 to 100"),
        (
            {"mse": 0.02, "fvu": 0.021},
            "FVU 0.0210: over 0.015. To reconstruct better, train longer (--epochs 5), lower --l1-coeff from 0.001 to",
        ),
        ({"mse": 0.002}, "may be overfitting. To see more in each feature, raise --l1-coeff"),
        ({"mse": 0.007}, "good for interpretation"),
        ({"dead_share": 0.25}, "25.0% of the features were active on no token"),
    ],
)
def test_relu(metrics: dict[str, float], expected: str) -> None:
    assert expected in advice(**metrics)


def test_topk_is_told_about_k() -> None:
    assert "L0 is 11.9, set by k = 12." in advice(TOPK, l0=11.9)
    assert "raise --k" in advice(TOPK, mse=0.2, fvu=0.2)
    assert "dead_after" in advice(TOPK, dead_share=0.5)
    assert "l1-coeff" not in advice(TOPK, mse=0.2, dead_share=0.5)


def test_a_wanted_l0_names_the_coefficient_that_gave_it() -> None:
    assert "L0 is 70.0 (wanted: 75), found with --l1-coeff 2.13e-03." in advice(l1_coeff=2.13e-3, target_l0=75)
