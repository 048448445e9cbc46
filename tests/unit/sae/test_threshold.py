"""Thresholds: which features are above one, and the one that gives a wanted L0."""

from __future__ import annotations

import pytest
import torch

from kubesae.sae import Weights, encoder, threshold
from kubesae.sae.shard import alone
from kubesae.sae.threshold import ThresholdSearch

D, F = 16, 96
CPU = torch.device("cpu")


@pytest.fixture
def weights() -> Weights:
    generator = torch.Generator().manual_seed(3)
    decoder_FD = torch.nn.functional.normalize(torch.randn(F, D, generator=generator), dim=1)
    return Weights(decoder_FD.clone(), 0.1 * torch.randn(F, generator=generator), decoder_FD, torch.zeros(D))


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * 3


def test_each_feature_has_a_threshold_of_its_own(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    x_BD, threshold_F = rows(20), torch.linspace(0.1, 4, F)
    z_BF = x_BD @ weights.W_enc_FD.T + weights.b_enc_F
    expected_BF = torch.where(z_BF > threshold_F, z_BF, 0.0)
    monkeypatch.setattr(encoder, "_SLICE", 1)
    for rows_in_a_slice in (256, 3):
        monkeypatch.setattr(encoder, "_SLICE_ROWS", rows_in_a_slice)
        code = threshold.encode(x_BD, weights, threshold_F, torch.float32)
        torch.testing.assert_close(code.dense(F), expected_BF)


@pytest.mark.parametrize("wanted", [1, 3.5, 20])
def test_the_solved_threshold_gives_the_l0_that_was_wanted(weights: Weights, wanted: float) -> None:
    x_BD, search = rows(4000), ThresholdSearch(CPU)
    for part_BD in x_BD.split(700):
        search.add(part_BD, weights)
    found = search.solve(wanted, alone)
    code = threshold.encode(x_BD, weights, torch.full((F,), found), torch.float32)
    assert len(code.values_N) / len(x_BD) == pytest.approx(wanted, rel=2e-3)


def test_ranks_find_one_threshold(weights: Weights) -> None:
    x_BD, whole, parts = rows(900), ThresholdSearch(CPU), [ThresholdSearch(CPU) for _ in range(3)]
    whole.add(x_BD, weights)
    for part, part_BD in zip(parts, x_BD.split([100, 500, 300]), strict=True):
        part.add(part_BD, weights)
    sums = iter([sum(part._counts for part in parts), sum(part._rows for part in parts)])
    assert parts[0].solve(7, lambda _: next(sums)) == whole.solve(7, alone) > 0


def test_an_l0_that_the_rows_never_have_gives_no_threshold(weights: Weights) -> None:
    search = ThresholdSearch(CPU)
    assert search.solve(1, alone) == 0.0
    search.add(rows(10), weights)
    assert search.solve(F + 1, alone) == 0.0
