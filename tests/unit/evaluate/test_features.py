"""Densities that were planted, and the nearest decoder rows against all cosines at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kubesae.evaluate.features import density, similarity
from kubesae.evaluate.similarity import nearest


def test_planted_densities_are_found():
    rows = 1000
    active_F = np.array([0, 1, 10, 100, 101, 500, 1000, 0])
    found = density(active_F, rows)
    assert found.dense == 3
    assert found.dense_share == pytest.approx(3 / 8)
    assert [(one.feature, one.share) for one in found.densest] == [(6, 1.0), (5, 0.5), (4, 0.101)]
    assert found.quantiles is not None
    assert (found.quantiles.least, found.quantiles.most) == (0.001, 1.0)
    assert sum(found.log10_histogram.counts) == 6
    assert found.log10_histogram.edges[0] == -3


def test_at_most_ten_dense_features_are_listed():
    found = density(np.full(30, 9), 10)
    assert (found.dense, len(found.densest)) == (30, 10)
    assert [one.feature for one in found.densest] == list(range(10))


def test_no_feature_may_be_active():
    found = density(np.zeros(4, np.int64), 10)
    assert found.quantiles is None
    assert (found.dense, found.densest) == (0, ())


@pytest.mark.parametrize("tile", [1, 50, 130, 10**6])
def test_the_nearest_is_that_of_all_cosines(tile):
    W_FD = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 51)[:, None]
    unit = torch.nn.functional.normalize(W_FD)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    found = nearest(W_FD, tile)
    # the nearest is looked for in bfloat16 where that is quicker
    torch.testing.assert_close(found.cosine_F, cosines.amax(1), rtol=0, atol=0.01)
    torch.testing.assert_close(found.cosine_F, cosines.gather(1, found.other_F[:, None])[:, 0])
    assert (found.other_F != torch.arange(50)).all()


def test_copies_are_pairs_once_each():
    generator = torch.Generator().manual_seed(1)
    W_FD = torch.randn(40, 64, generator=generator)
    W_FD[7], W_FD[30] = 3 * W_FD[2], -W_FD[11]
    found = similarity(W_FD)
    assert found is not None
    assert found.alike_share == pytest.approx(2 / 40)
    assert (found.closest[0].feature, found.closest[0].other) == (2, 7)
    assert found.closest[0].cosine == pytest.approx(1)
    pairs = [(pair.feature, pair.other) for pair in found.closest]
    assert len(set(pairs)) == len(pairs) == 10
    assert sum(found.histogram.counts) == 40


def test_a_feature_of_zeros_is_like_none():
    W_FD = torch.eye(4)
    W_FD[2] = 0
    assert nearest(W_FD).cosine_F.tolist() == [0, 0, 0, 0]


def test_one_feature_has_no_neighbour():
    assert similarity(torch.ones(1, 4)) is None
