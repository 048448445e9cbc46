"""Advice: its limits, with the run's own numbers."""

from __future__ import annotations

from typing import Any

import pytest

from kubesae.experiment import Sae as Settings
from kubesae.sae import SaeConfig
from kubesae.train.advice import advise, advise_speed

RELU = SaeConfig(architecture="relu", d_model=8, d_sae=64)
TOPK = SaeConfig(architecture="topk", d_model=8, d_sae=64, k=12)


def advice(config: SaeConfig = RELU, l1_coeff: float = 1e-3, target_l0: float | None = None, **metrics: Any) -> str:
    measured = {"l0": 70.0, "mse": 0.007, "fvu": 0.0071, "dead_share": 0.0, "step": 1000} | metrics
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
        ({"step": 99}, "Training took 99 steps, too few to judge by. Lower --batch-size from 8,192"),
        ({"dead_share": 0.25}, "25.0% of the features were active on no token"),
    ],
)
def test_relu(metrics: dict[str, float], expected: str) -> None:
    assert expected in advice(**metrics)


def test_the_two_sentences_do_not_contradict_each_other() -> None:
    both = advice(l0=200.0, mse=0.3, fvu=0.3)
    assert "raise --l1-coeff from 0.001" in both
    assert "lower" not in both
    assert advice(l0=10.0, mse=0.3, fvu=0.3).count("lower --l1-coeff") == 1
    assert "raise --l1-coeff from 0 to 0.001" in advice(l1_coeff=0.0, l0=200.0)


def test_topk_is_told_about_k() -> None:
    assert "L0 is 11.9, set by k = 12." in advice(TOPK, l0=11.9)
    assert "raise --k" in advice(TOPK, mse=0.2, fvu=0.2)
    assert "dead_after" in advice(TOPK, dead_share=0.5)
    assert "l1-coeff" not in advice(TOPK, mse=0.2, dead_share=0.5)


def test_jumprelu_is_told_about_its_own_coefficient() -> None:
    jumprelu = SaeConfig(architecture="jumprelu", d_model=8, d_sae=64)
    said = advice(jumprelu, l0=200.0, mse=0.002, dead_share=0.5)
    assert "raise --l0-coeff from 0.001 to 0.003" in said
    assert "raise --l0-coeff above 0.001" in said
    assert "lower --l0-coeff" in said
    assert "l1-coeff" not in said
    assert "raise --l1-coeff from" in advice(SaeConfig(architecture="gated", d_model=8, d_sae=64), l0=200.0)


def test_a_wanted_l0_names_the_coefficient_that_gave_it() -> None:
    assert "L0 is 70.0 (wanted: 75), found with --l1-coeff 2.13e-03." in advice(l1_coeff=2.13e-3, target_l0=75)


def line(epoch: int, rows: int, wait: float, speed: float = 100.0) -> dict[str, Any]:
    """Return a line of metrics: `rows` are those of the whole training so far."""
    return {"kind": "step", "epoch": epoch, "rows": rows, "data_wait_share": wait, "tokens_per_second": speed}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        ([line(1, 1000, 0.1), line(1, 2000, 0.2)], None),
        ([line(1, 1000, 0.9), {"kind": "epoch", "epoch": 1}, line(2, 2000, 0.0)], None),  # only the last epoch counts
        ([line(1, 1000, 0.0), line(2, 2000, 0.5)], "waited for data 50% of the last epoch, at 100 tokens/s. Raise"),
        # a line counts by its time: 10 s without waiting, 90 s of nothing else
        ([line(1, 1000, 0.0), line(1, 10_000, 1.0)], "waited for data 90% of the last epoch"),
        ([line(1, 1000, 1.0, 0.0)], "waited for data 100% of the last epoch"),
    ],
)
def test_waiting_for_data(lines: list[dict[str, Any]], expected: str | None) -> None:
    found = advise_speed(lines, 3)
    assert bool(found) == (expected is not None)
    if expected:
        assert expected in found[0]
        assert "--num-workers above 3" in found[0]
