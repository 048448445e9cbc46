"""Flags of rows, against an oracle written row by row from their definition."""

from __future__ import annotations

import statistics

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kubesae.shards import outlier_flags, position_flags

ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.floats(0, 2000, width=32)), min_size=1, max_size=40)
SPECIAL = st.lists(st.integers(0, 9), max_size=3)


@given(ROWS, SPECIAL)
def test_each_row_has_the_flags_of_its_definition(rows: list[tuple[int, int, float]], special: list[int]) -> None:
    tokens = np.array([row[0] for row in rows], np.uint32)
    positions = np.array([row[1] for row in rows], np.int64)
    norms = np.array([row[2] for row in rows], np.float32)
    flags = position_flags(tokens, positions, np.array(special, np.uint32))
    assert flags.dtype == np.uint8
    assert flags.tolist() == [(position == 0) + 2 * (token in special) for token, position, _ in rows]

    found = outlier_flags(norms, flags)
    assert found.dtype == np.uint8
    plain = [norm for (token, position, norm) in rows if position != 0 and token not in special]
    limit = 10 * statistics.median(plain) if plain else float("inf")
    assert found.tolist() == [4 * (norm > limit) for _, _, norm in rows]


def test_an_outlier_is_over_ten_times_the_median_of_unflagged_rows() -> None:
    norms = np.array([1, 1, 3, 10, 10.5, 500], np.float32)
    flags = np.array([0, 0, 0, 1, 0, 2], np.uint8)
    assert outlier_flags(norms, flags).tolist() == [0, 0, 0, 0, 0, 4]  # the median of 1, 1, 3, 10.5 is 2
    assert outlier_flags(norms, np.array([0, 0, 1, 1, 1, 2], np.uint8)).tolist() == [0, 0, 0, 0, 4, 4]


def test_without_an_unflagged_row_nothing_is_an_outlier() -> None:
    assert outlier_flags(np.array([1, 99], np.float32), np.array([1, 2], np.uint8)).tolist() == [0, 0]
