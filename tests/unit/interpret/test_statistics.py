from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesae.errors import KubesaeError
from kubesae.interpret.statistics import NO_ROW, Statistics

if TYPE_CHECKING:
    import numpy.typing as npt

FEATURES = 5
TOP_K = 3
# Few different values, so that ties are common, beside any float32 that can be an activation.
VALUES = st.sampled_from([0.0, 0.5, 1.0, 1.5]) | st.floats(0, 2.0**20, width=32)


@st.composite
def codes(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    """Dense activations, [rows, FEATURES]."""
    rows = draw(st.integers(1, 12))
    values = draw(st.lists(VALUES, min_size=rows * FEATURES, max_size=rows * FEATURES))
    return np.array(values, np.float32).reshape(rows, FEATURES)


def statistics_of(f_NF: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], top_k: int = TOP_K) -> Statistics:
    statistics = Statistics.zero(FEATURES, top_k)
    entry, feature = np.nonzero(f_NF[rows])
    statistics.add(rows[entry], feature, f_NF[rows][entry, feature], rows=len(rows), flagged=0)
    return statistics


def bits(statistics: Statistics) -> tuple[object, ...]:
    return (
        statistics.rows,
        statistics.flagged,
        *(getattr(statistics, name).tobytes() for name in ("count_F", "whole_F", "fraction_F", "value_FK", "row_FK")),
    )


@settings(deadline=None)
@given(codes(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_split_in_any_order_gives_the_bits_of_one_pass(f_NF: npt.NDArray[np.float32], random, workers: int) -> None:
    rows = list(range(len(f_NF)))
    random.shuffle(rows)
    shares = [np.array(rows[i::workers], np.int64) for i in range(workers)]
    merged = reduce(add, [statistics_of(f_NF, share) for share in shares], Statistics.zero(FEATURES, TOP_K))
    assert bits(merged) == bits(statistics_of(f_NF, np.arange(len(f_NF))))


@settings(deadline=None)
@given(codes(), codes(), codes())
def test_merging_is_associative_and_commutative_to_the_bit(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], third: npt.NDArray[np.float32]
) -> None:
    parts = (first, second, third)
    starts = np.cumsum([0, *map(len, parts)])
    all_NF = np.concatenate(parts)
    a, b, c = (statistics_of(all_NF, np.arange(starts[i], starts[i + 1])) for i in range(3))
    assert bits((a + b) + c) == bits(a + (b + c)) == bits(c + a + b)


@settings(deadline=None)
@given(codes())
def test_statistics_are_what_a_sort_and_a_sum_give(f_NF: npt.NDArray[np.float32]) -> None:
    found = statistics_of(f_NF, np.arange(len(f_NF)))
    for feature in range(FEATURES):
        column = f_NF[:, feature]
        order = [row for row in np.lexsort((np.arange(len(column)), -column)) if column[row] > 0][:TOP_K]
        assert found.row_FK[feature, : len(order)].tolist() == order
        assert found.value_FK[feature, : len(order)].tolist() == column[order].tolist()
        assert (found.row_FK[feature, len(order) :] == NO_ROW).all()
        assert found.count_F[feature] == (column > 0).sum()
        assert found.max_F[feature] == column.max()
        # each activation is rounded by half a unit of 2^-30 at most
        assert found.total_F[feature] == pytest.approx(
            column.sum(dtype=np.float64), rel=1e-15, abs=len(f_NF) * 2.0**-31
        )


def test_the_mean_runs_over_all_unflagged_rows_and_mean_active_over_active_ones() -> None:
    statistics = Statistics.zero(FEATURES, TOP_K)
    entries = (np.array([7, 9]), np.array([2, 2]), np.array([1.0, 4.0], np.float32))
    statistics.add(*entries, rows=10, flagged=3)
    assert (statistics.rows, statistics.flagged) == (10, 3)
    assert statistics.mean_F[2] == 0.5
    assert statistics.mean_active_F[2] == 2.5
    assert statistics.frequency_F[2] == 0.2
    assert statistics.mean_active_F[0] == 0.0


def test_small_activations_keep_their_sum() -> None:
    statistics = Statistics.zero(1, 1)
    values = np.full(100_000, 1e-4, np.float32)
    statistics.add(np.arange(100_000), np.zeros(100_000, np.int64), values, rows=100_000, flagged=0)
    assert statistics.mean_F[0] == pytest.approx(1e-4, rel=1e-5)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e30, "diverged")])
def test_activations_that_cannot_be_summed_are_named(value: float, message: str) -> None:
    statistics = Statistics.zero(FEATURES, TOP_K)
    with pytest.raises(KubesaeError, match=f"Feature 3 .*{message}"):
        statistics.add(np.array([0]), np.array([3]), np.array([value], np.float32), rows=1, flagged=0)


def test_statistics_of_other_sizes_do_not_add() -> None:
    with pytest.raises(ValueError, match="do not add"):
        Statistics.zero(5, 3) + Statistics.zero(5, 4)
