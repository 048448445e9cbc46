"""Schedules at their edges, and the controller of L0."""

from __future__ import annotations

import pytest

from kubesae.train.schedule import annealed, default_rate, highest_l0, learning_rate, sparsity, steer


def test_learning_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 2.0, 0.1, 0.2) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9:81] == [2.0] * 72
    assert rates[90] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(0.1)
    assert rates == [*sorted(rates[:50]), *sorted(rates[50:], reverse=True)]
    assert learning_rate(100, 100, 2.0, 0.1, 0.2) == 0


def test_learning_rate_without_ramps_is_constant() -> None:
    assert {learning_rate(step, 10, 0.5, 0, 0) for step in range(10)} == {0.5}


def test_learning_rate_of_a_single_step() -> None:
    assert learning_rate(0, 1, 1.0, 0.05, 0.2) == 1.0


def test_a_cosine_falls_from_the_peak_to_zero() -> None:
    rates = [learning_rate(step, 100, 2.0, 0.1, 0.8, cosine=True) for step in range(101)]
    assert rates[9:21] == pytest.approx([2.0] * 12)
    assert rates[60] == pytest.approx(1.0)
    assert rates[40] == pytest.approx(2.0 * (1 + 2**-0.5) / 2)
    assert rates[100] == 0
    assert learning_rate(99, 100, 2.0, 0, 0, cosine=True) == 2.0


def test_k_falls_to_its_end_and_stays() -> None:
    assert [annealed(step, 100, 64, 4, 0.1) for step in (0, 1, 5, 9, 10, 11, 99)] == [64, 58, 34, 10, 4, 4, 4]
    assert annealed(0, 3, 5, 4, 0.1) == 5
    assert annealed(1, 3, 5, 4, 0.1) == 4
    assert annealed(0, 100, 64, 4, 0) == 4


def test_sparsity_rises_from_zero() -> None:
    assert [sparsity(step, 100, 0.1) for step in (0, 5, 10, 99)] == [0, 0.5, 1, 1]
    assert sparsity(0, 100, 0) == 1


@pytest.mark.parametrize("start", [1e-5, 1e-3, 1.0])
def test_steering_finds_the_wanted_l0(start: float) -> None:
    """A model of training: L0 follows a falling power of the coefficient with a delay, as measured on real runs."""
    total, target, l1_coeff, l0 = 1000, 70.0, start, 2000.0
    for _ in range(total):
        settled = 90.0 * (l1_coeff / 1e-3) ** -0.9
        l0 += (settled - l0) / 50
        l1_coeff = steer(l1_coeff, l0, target, total)
    assert l0 == pytest.approx(target, rel=0.1)


@pytest.mark.parametrize("start", [1e-5, 1e-3, 1.0])
def test_steering_down_a_slope_finds_it_too(start: float) -> None:
    """The same model; on the way down L0 is never far below what is allowed."""
    total, target, coefficient, l0, lowest = 1000, 70.0, start, 2000.0, 1e9
    for step in range(total):
        settled = 90.0 * (coefficient / 1e-3) ** -0.9
        l0 += (settled - l0) / 50
        coefficient = steer(coefficient, l0, target, total, highest_l0(step, total, target, 4000))
        lowest = min(lowest, l0) if start <= 1e-3 else 70.0
    assert l0 == pytest.approx(target, rel=0.1)
    assert lowest > 0.6 * target


def test_the_allowed_l0_falls_from_half_of_all_features_to_the_target() -> None:
    allowed = [highest_l0(step, 100, 10.0, 2000) for step in range(101)]
    assert allowed[0] == pytest.approx(1000)
    assert allowed[25] == pytest.approx(100)
    assert allowed[50:] == pytest.approx([10.0] * 51)
    assert highest_l0(0, 100, 10.0, 12) == 10.0


def test_between_the_target_and_the_allowed_nothing_changes() -> None:
    assert steer(1e-3, 300.0, 70.0, 100, 500.0) == 1e-3
    assert steer(1e-3, 600.0, 70.0, 100, 500.0) > 1e-3
    assert steer(1e-3, 60.0, 70.0, 100, 500.0) < 1e-3


def test_steering_leaves_a_coefficient_that_fits() -> None:
    assert steer(1e-3, 70.0, 70.0, 100) == 1e-3
    assert steer(1e-3, 0.0, 70.0, 100) < 1e-3


def test_the_default_rate_falls_with_the_root_of_the_length() -> None:
    assert default_rate("relu", 50) == default_rate("relu", 10**6) == 3e-4
    assert default_rate("topk", 50) == 0.005
    assert default_rate("topk", 1600) == pytest.approx(0.00275)
    assert default_rate("jumprelu", 122_000) == pytest.approx(3.15e-4, rel=1e-3)
