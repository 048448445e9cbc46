"""Permutations: pure, complete, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest

from kubesae.shards.order import permutation


def test_known_values() -> None:
    """These may never change: a run that resumes under a new version of anything must see the same order."""
    assert permutation(8, 0, 0).tolist() == [7, 3, 2, 4, 6, 0, 5, 1]
    assert permutation(5, 3, 1, 4).tolist() == [3, 2, 1, 4, 0]


@pytest.mark.parametrize("length", [0, 1, 2, 1000])
def test_every_number_occurs_once(length: int) -> None:
    assert sorted(permutation(length, 7, 2)) == list(range(length))


def test_every_key_counts() -> None:
    orders = {tuple(permutation(50, *keys)) for keys in [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]}
    assert len(orders) == 6


def test_places_are_spread_evenly() -> None:
    """Over many keys each number comes to each place about equally often: chi squared with 81 degrees of freedom."""
    counts = np.zeros((10, 10))
    for key in range(2000):
        counts[np.arange(10), permutation(10, key)] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 130
