"""Sums over rows against their formulas, and SAEs whose shrinkage is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.evaluate.sums import RowSums, l0_of
from kubesae.sae.kernels import Code

ROWS, D, FEATURES = 400, 6, 9


def sums(x, x_hat, l0=None):
    l0 = torch.zeros(len(x), dtype=torch.int64) if l0 is None else l0
    return RowSums.of(x, x_hat, l0, FEATURES)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, D, generator=generator)
    return x, 0.7 * x + 0.3 * torch.randn(ROWS, D, generator=generator)


def test_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    x_hat = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    found = sums(x, x_hat, torch.tensor([2, 1]))
    assert found.shrinkage() == pytest.approx((9 + 1) / (9 + 2))
    assert found.norm_ratio() == pytest.approx((3 + 1) / (5 + 2))
    assert found.mean_cosine() == pytest.approx((0.6 + 1) / 2)
    assert found.with_l0.tolist() == [0, 1, 1] + 7 * [0]


@pytest.mark.parametrize("planted", [0.5, 0.8, 1.0, 1.25])
def test_a_planted_shrinkage_is_found(rows, planted):
    """With an error across the row, gamma is what the error does not explain."""
    x, _ = rows
    across = F.normalize(torch.randn(ROWS, D, generator=torch.Generator().manual_seed(1)))
    across -= (across * x).sum(1, keepdim=True) / x.square().sum(1, keepdim=True) * x
    assert sums(x, planted * x).shrinkage() == pytest.approx(planted, rel=1e-6)
    wrong = planted * x + across
    expected = float(wrong.double().square().sum() / (wrong * x).double().sum())
    assert sums(x, wrong).shrinkage() == pytest.approx(expected, rel=1e-6)


def test_gamma_is_the_minimiser(rows):
    x, x_hat = rows
    gamma = sums(x, x_hat).shrinkage()

    def loss(g):
        return float((x - x_hat / g).square().sum())

    assert loss(gamma) < min(loss(0.99 * gamma), loss(1.01 * gamma))


def test_a_mean_hides_shrinkage_that_is_there(rows):
    x, _ = rows
    mean = torch.full((D,), 20.0)
    found = sums(x + mean, 0.6 * x + mean)
    assert found.shrinkage() == pytest.approx(1.0, abs=0.01)
    assert found.shrinkage_about_mean() == pytest.approx(0.6, abs=0.01)
    centred = x - x.mean(0)
    exact = sums(centred + mean, 0.6 * centred + mean)
    assert exact.shrinkage_about_mean() == pytest.approx(0.6, rel=1e-4)


def test_what_is_undefined_is_none():
    zeros = torch.zeros(3, D)
    assert sums(torch.ones(3, D), zeros).shrinkage() is None
    assert sums(zeros, zeros).norm_ratio() is None
    assert sums(torch.ones(3, D), zeros).mean_cosine() == 0.0
    assert RowSums.zero(D, FEATURES).mean_cosine() is None


def test_the_cosine_is_torch_s(rows):
    x, x_hat = rows
    expected = float(F.cosine_similarity(x.double(), x_hat.double()).mean())
    assert sums(x, x_hat).mean_cosine() == pytest.approx(expected, rel=1e-9)


def test_l0_counts_entries_above_zero():
    code = Code(torch.tensor([0, 2, 2, 5]), torch.tensor([1, 3, 0, 1, 2]), torch.tensor([1.0, 0.0, 2.0, 0.0, 3.0]))
    assert l0_of(code).tolist() == [1, 0, 2]
