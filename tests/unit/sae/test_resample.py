"""Resampling of dead features: which rows are drawn, by any number of ranks, and what a feature begins anew with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.sae.resample import draw_rows, forget, replace_features
from kubesae.sae.shard import alone
from kubesae.sae.weights import Weights
from sae_oracle import rows_and_weights
from thread_ranks import run_ranks

if TYPE_CHECKING:
    from kubesae.train.distributed import Ranks

B, D, F = 64, 8, 24


def rows(count: int = B, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def rows_set(drawn: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in drawn.tolist()}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("wanted", [1, 5, 40, 100])
def test_ranks_draw_what_one_would(world: int, wanted: int) -> None:
    x = rows()
    error = x.square().sum(1)

    def work(ranks: Ranks) -> torch.Tensor:
        mine = slice(ranks.rank, None, ranks.world)
        return draw_rows(x[mine], error[mine], wanted, ranks.rank, ranks.world, ranks.sum)

    (expected,) = run_ranks(1, work)
    assert len(expected) == min(wanted, B)
    assert len(rows_set(expected)) == len(expected)
    assert rows_set(expected) <= rows_set(x)
    for drawn in run_ranks(world, work):
        assert torch.equal(drawn, expected)


def test_the_draw_weighs_rows_by_the_square_of_their_error() -> None:
    """A tenth of the rows has twice the error, so 4 / 13 of the draws."""
    x = rows(20_000)
    error = torch.ones(len(x))
    error[::10] = 2.0
    heavy, wanted = rows_set(x[::10]), 500
    drawn = draw_rows(x, error, wanted, 0, 1, alone)
    share = sum(row in heavy for row in rows_set(drawn)) / wanted
    assert share == pytest.approx(4 / 13, abs=4 * math.sqrt(4 / 13 * 9 / 13 / wanted))


def test_rows_without_error_are_not_drawn() -> None:
    x, error = rows(), torch.zeros(B)
    error[3] = 1.0
    assert torch.equal(draw_rows(x, error, 5, 0, 1, alone), x[3:4])
    assert len(draw_rows(x[:0], error[:0], 5, 0, 1, alone)) == 0


def test_a_feature_begins_anew() -> None:
    x, plain = rows_and_weights(B, D, F)
    vector = torch.ones(F, dtype=torch.float64)
    weights = Weights(*plain, log_threshold_F=vector.clone(), r_mag_F=vector.clone(), b_gate_F=vector.clone())
    before = weights.each(torch.clone)
    features, dead = torch.tensor([2, 7]), torch.zeros(F, dtype=torch.bool)
    dead[[2, 7, 9]] = True
    replace_features(weights, features, dead, x[:2], 0.1)
    direction = x[:2] / x[:2].norm(dim=1, keepdim=True)
    torch.testing.assert_close(weights.W_dec_FD[features], direction)
    living = before.W_enc_FD[~dead].norm(dim=1).mean()
    torch.testing.assert_close(weights.W_enc_FD[features], 0.2 * living * direction)
    for name, value in (("b_enc", 0.0), ("log_threshold", math.log(0.1)), ("r_mag", 0.0), ("b_gate", 0.0)):
        torch.testing.assert_close(weights.named()[name][features].tolist(), [value, value])
    others = [i for i in range(F) if i not in {2, 7}]
    for name, tensor in weights.named().items():
        assert (
            torch.equal(tensor, before.named()[name])
            if name == "b_dec"
            else torch.equal(tensor[others], before.named()[name][others])
        )


def test_moments_of_these_features_are_forgotten() -> None:
    _, moments = rows_and_weights(B, D, F)
    before = moments.each(torch.clone)
    forget(moments, torch.tensor([2, 7]))
    for name in ("W_enc", "b_enc", "W_dec"):
        assert torch.count_nonzero(moments.named()[name][[2, 7]]) == 0
        assert torch.equal(moments.named()[name][8:], before.named()[name][8:])
    assert torch.equal(moments.b_dec_D, before.b_dec_D)
