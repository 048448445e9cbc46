"""How training starts."""

from __future__ import annotations

import pytest
import torch

from kubesae.sae import SaeConfig, initial_weights
from kubesae.sae.weights import Weights, geometric_median, no_weights

CPU = torch.device("cpu")
TOPK = SaeConfig(architecture="topk", d_model=6, d_sae=20, k=2)


def sample() -> torch.Tensor:
    return torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) + 3


@pytest.mark.parametrize(("architecture", "share"), [("topk", 0.3), ("batchtopk", 0.3), ("relu", 1.0), ("gated", 1.0)])
def test_encoder_starts_as_a_share_of_the_decoder(architecture: str, share: float) -> None:
    k = 3 if share < 1 else None
    weights = initial_weights(SaeConfig(architecture=architecture, d_model=6, d_sae=20, k=k), sample(), seed=1)
    assert torch.equal(weights.W_enc_FD, share * weights.W_dec_FD)
    assert weights.W_enc_FD.data_ptr() != weights.W_dec_FD.data_ptr()
    assert torch.count_nonzero(weights.b_enc_F) == 0


def test_decoder_rows_have_the_norm_that_is_asked_for() -> None:
    torch.testing.assert_close(initial_weights(TOPK, sample(), 1).W_dec_FD.norm(dim=1), torch.ones(20))
    short = initial_weights(TOPK, sample(), 1, decoder_norm=0.1)
    torch.testing.assert_close(short.W_dec_FD.norm(dim=1), torch.full((20,), 0.1))
    assert torch.equal(short.W_enc_FD, 0.3 * short.W_dec_FD)


def test_an_architecture_has_its_own_tensors() -> None:
    def names(architecture: str) -> list[str]:
        config = SaeConfig(architecture=architecture, d_model=6, d_sae=20)
        weights = initial_weights(config, sample(), 1, threshold=0.25)
        assert weights.named().keys() == no_weights(config, CPU).named().keys()
        assert len(list(weights)) == len(list(weights.each(torch.zeros_like)))
        if weights.log_threshold_F is not None:
            torch.testing.assert_close(weights.log_threshold_F.exp(), torch.full((20,), 0.25))
        return list(weights.named())

    common = ["W_enc", "b_enc", "W_dec", "b_dec"]
    assert names("relu") == common
    assert names("jumprelu") == [*common, "log_threshold"]
    assert names("gated") == [*common, "r_mag", "b_gate"]


def test_a_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (initial_weights(TOPK, sample(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.W_dec_FD, other.W_dec_FD)


def test_decoder_bias_starts_at_the_samples_centre_despite_outliers() -> None:
    rows = sample()
    rows[:5] = 1e6
    bias = initial_weights(TOPK, rows, 1).b_dec_D
    torch.testing.assert_close(bias, torch.full((6,), 3.0), atol=0.3, rtol=0)
    assert rows.mean(0).min() > 1000


def test_decoder_bias_may_start_at_the_mean() -> None:
    rows = sample()
    torch.testing.assert_close(initial_weights(TOPK, rows, 1, centre="mean").b_dec_D, rows.mean(0))


def test_geometric_median_has_the_least_sum_of_distances() -> None:
    rows = sample().double()
    median = geometric_median(rows)

    def distance(point: torch.Tensor) -> float:
        return float((rows - point).norm(dim=1).sum())

    for step in torch.eye(6, dtype=torch.float64) * 0.05:
        assert distance(median) < distance(median + step)
        assert distance(median) < distance(median - step)


def test_geometric_median_of_equal_rows_is_that_row() -> None:
    row = torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(geometric_median(row.expand(9, 3)), row)


def test_names_are_those_in_files() -> None:
    assert Weights.names() == ("W_enc", "b_enc", "W_dec", "b_dec")
