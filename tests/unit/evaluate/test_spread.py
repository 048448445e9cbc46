"""Quantiles are numpy's, and no value is lost in a histogram."""

from __future__ import annotations

import numpy as np
import pytest

from kubesae.evaluate.spread import SHARES, logarithms, quantiles, unit_interval, whole_numbers


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1001])
def test_quantiles_are_numpy_s_inverted_distribution(size):
    values = np.random.default_rng(size).normal(size=size)
    expected = np.quantile(values, SHARES, method="inverted_cdf")
    np.testing.assert_array_equal(list(quantiles(values).model_dump().values()), expected)


def test_quantiles_of_counts_are_those_of_the_values_written_out():
    counts = np.array([0, 3, 0, 10, 1, 0, 7])
    values = np.arange(7.0)
    assert quantiles(values, counts) == quantiles(np.repeat(values, counts))


def test_whole_numbers_have_a_bar_each_where_they_are_few():
    counts = np.zeros(30, np.int64)
    counts[[4, 5, 8]] = 10, 3, 1
    found = whole_numbers(counts)
    assert found.edges == (4, 5, 6, 7, 8, 9)
    assert found.counts == (10, 3, 0, 0, 1)
    assert whole_numbers(np.eye(1, 9, 3, dtype=np.int64)[0]).edges == (3, 4)


def test_many_whole_numbers_share_bars():
    counts = np.arange(1001)
    found = whole_numbers(counts)
    assert len(found.counts) == len(found.edges) - 1 <= 60
    assert sum(found.counts) == counts.sum()
    assert found.edges[0] == 1
    assert set(np.diff(found.edges)) == {17}
    assert found.counts[0] == counts[1:18].sum()


def test_logarithms_cover_everything_from_one_row_to_all():
    found = logarithms(np.array([1e-3, 1e-3, 0.1, 0.5, 1.0]), 1e-3)
    assert (found.edges[0], found.edges[-1]) == (-3, 0)
    assert len(found.counts) == 15
    assert (found.counts[0], found.counts[10], sum(found.counts)) == (2, 1, 5)
    assert sum(logarithms(np.array([]), 0.5).counts) == 0


def test_the_unit_interval_takes_in_what_lies_outside():
    found = unit_interval(np.array([-0.2, 0.0, 0.5, 0.999, 1.0, 1.0000001]), 10)
    assert found.counts == (2, 0, 0, 0, 0, 1, 0, 0, 0, 3)
