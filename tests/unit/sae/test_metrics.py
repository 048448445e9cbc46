"""Metrics against numpy in float64, and that sums merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kubesae.sae import Covariance, Sums

ROWS, D, F = 300, 7, 12


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, D, generator=generator) * torch.arange(1.0, D + 1) + 20
    x_hat = x + 0.3 * torch.randn(ROWS, D, generator=generator) + 0.5
    f = torch.relu(torch.randn(ROWS, F, generator=generator) - 1)
    f[:, 5] = 0
    return x, x_hat, f


def sums(x: torch.Tensor, x_hat: torch.Tensor, f: torch.Tensor) -> Sums:
    return Sums.of(x, x_hat, (f > 0).sum(0))


def test_fvu_is_numpys() -> None:
    x, x_hat, f = data()
    a, b = x.numpy().astype(np.float64), x_hat.numpy().astype(np.float64)
    expected = ((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum()
    assert sums(x, x_hat, f).fvu() == pytest.approx(expected, rel=1e-9)


def test_a_constant_error_counts() -> None:
    """var(x - x_hat) / var(x) would be 0 here."""
    x, _, f = data()
    shifted = sums(x, x + 3, f)
    assert shifted.fvu() == pytest.approx(9 * ROWS * D / float((x.double() - x.double().mean(0)).square().sum()))
    assert shifted.mse() == pytest.approx(9)


def test_predicting_the_mean_leaves_all_variance() -> None:
    x, _, f = data()
    assert sums(x, x.double().mean(0).expand_as(x), f).fvu() == pytest.approx(1)
    assert sums(x, x, f).fvu() == 0


def test_l0_and_dead_share() -> None:
    x, x_hat, f = data()
    total = sums(x, x_hat, f)
    assert total.l0() == pytest.approx(float((f > 0).double().sum(1).mean()))
    assert total.dead_share() == pytest.approx(1 / F)


def test_sums_merge_to_those_of_all_rows() -> None:
    """One mean over all rows: the mean of the parts' own FVU is another number."""
    x, x_hat, f = data()
    x[:100] += 50
    x_hat[:100] += 50
    parts = [sums(x[a:b], x_hat[a:b], f[a:b]) for a, b in ((0, 100), (100, 110), (110, ROWS))]
    merged = Sums.zero(D, F) + parts[2] + parts[0] + parts[1]
    whole = sums(x, x_hat, f)
    assert merged.fvu() == pytest.approx(whole.fvu(), rel=1e-12)
    assert (merged.l0(), merged.dead_share(), int(merged.rows)) == (whole.l0(), whole.dead_share(), ROWS)
    assert np.mean([part.fvu() for part in parts]) > 1.5 * whole.fvu()


def test_fvu_survives_a_large_mean() -> None:
    """float32 sums would lose the variance against a mean of 3,000."""
    x, x_hat, f = data()
    plain, shifted = sums(x, x_hat, f), sums(x.double() + 3000, x_hat.double() + 3000, f)
    assert shifted.fvu() == pytest.approx(plain.fvu(), rel=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_pca_fvu_is_that_of_the_truncated_svd(rank: int) -> None:
    x, _, _ = data()
    covariance = Covariance.zero(D)
    covariance.add(x[:120])
    covariance.add(x[120:])
    centred = x.numpy().astype(np.float64) - x.numpy().astype(np.float64).mean(0)
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    rebuilt = (u[:, :rank] * s[:rank]) @ v[:rank]
    expected = ((centred - rebuilt) ** 2).sum() / (centred**2).sum()
    assert covariance.pca_fvu(rank) == pytest.approx(expected, rel=1e-9)


def test_pca_of_full_rank_explains_everything() -> None:
    x, _, _ = data()
    covariance = Covariance.zero(D)
    covariance.add(x)
    assert covariance.pca_fvu(D) == pytest.approx(0, abs=1e-12)
