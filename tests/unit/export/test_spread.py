"""Bins of equal width against numpy's histogram."""

import numpy as np
import pytest

from exported import dense, subject
from kubesae.export import spread
from small_sae import DEAD


@pytest.mark.parametrize("piece", [7, 1 << 22])
def test_counts_are_those_of_all_activations(piece, small_store, monkeypatch):
    monkeypatch.setattr(spread, "_PIECE", piece)
    opened = subject(small_store)
    f_RF = dense(opened)
    count_FB = spread.count(opened.cache, opened.stored.statistics["max"].to_numpy())
    assert not count_FB[DEAD].any()
    for feature, active in enumerate(f_RF.T):
        counted, _ = np.histogram(active[active > 0].astype(np.float64), spread.BINS, (0, float(active.max()) or 1))
        assert count_FB[feature].sum() == (active > 0).sum()
        assert np.abs(np.cumsum(count_FB[feature]) - np.cumsum(counted)).max() <= 1  # an activation on an edge


def test_edges_and_centres_share_out_the_range():
    assert spread.interval_edges(2.0) == [0.0, 0.4, 0.8, 1.2, 1.6, 2.0]
    assert spread.centres(100.0) == [2 * bin_ + 1.0 for bin_ in range(50)]
    assert spread.bin_of(np.float32([0.1, 1, 2]), np.float32([2, 2, 2])).tolist() == [2, 25, 49]
