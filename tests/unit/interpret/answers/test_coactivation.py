"""Co-activation against all pairs counted densely; sampled rows; compiled kernels against numpy."""

from __future__ import annotations

import math
from dataclasses import astuple
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kubesae.features import Codes
from kubesae.features.answers import COACTIVATION
from kubesae.interpret.answers import coactivation
from kubesae.interpret.answers.coactivation import coactivation_table, sample_rows, together
from kubesae.interpret.kept import by_hash
from kubesae.sae import native

if TYPE_CHECKING:
    import numpy.typing as npt

FEATURES, ROWS = 40, 700
ALWAYS, TWIN, DEAD = 3, 4, 5


@pytest.fixture
def active_RF() -> npt.NDArray[np.bool_]:
    """Who is active where: rare and frequent features, ties, twins, one that always is and one that never is."""
    generator = np.random.default_rng(0)
    active_RF = generator.random((ROWS, FEATURES)) < np.linspace(0.005, 0.5, FEATURES)
    active_RF[:, TWIN] = active_RF[:, 20]
    active_RF[:, ALWAYS], active_RF[:, DEAD] = True, False
    return active_RF


@pytest.fixture
def kept_R() -> npt.NDArray[np.bool_]:
    return np.random.default_rng(1).random(ROWS) < 0.9


def files(active_RF: npt.NDArray[np.bool_], kept_R: npt.NDArray[np.bool_], edges: tuple[int, ...]) -> list[Codes]:
    """Codes of rows up to each edge; global rows begin at 1000."""
    found = []
    for start, stop in pairwise(edges):
        feature_N, row_N = np.nonzero((active_RF & kept_R[:, None])[start:stop].T)
        offset_F = np.concatenate([[0], np.cumsum(np.bincount(feature_N, minlength=FEATURES))])
        values = np.ones(len(row_N), np.float32)
        found.append(Codes(1000 + start, kept_R[start:stop], offset_F, row_N.astype(np.uint32), values))
    return found


def table_of(codes: list[Codes], **settings: int):
    entries, rows = sum(len(one.row_N) for one in codes), sum(int(one.kept_R.sum()) for one in codes)
    most = settings.pop("rows", ROWS)
    sample = sample_rows(codes, rows, entries, FEATURES, most)
    return sample, coactivation_table(sample, **settings)


def check(table, active_RF: npt.NDArray[np.bool_], most: int) -> None:
    active_RF = active_RF.astype(np.int64)
    rows, count_F, both_FF = len(active_RF), active_RF.sum(0), active_RF.T @ active_RF
    assert table.schema == COACTIVATION
    for f, row in enumerate(table.to_pylist()):
        ranked = sorted(
            (-both_FF[f, g] / (count_F[f] + count_F[g] - both_FF[f, g]), g)
            for g in range(FEATURES)
            if g != f and both_FF[f, g]
        )[:most]
        assert row["feature"] == f
        assert row["others"] == [g for _, g in ranked]
        assert row["counts"] == [both_FF[f, g] for _, g in ranked]
        assert row["jaccard"] == pytest.approx([-j for j, _ in ranked], rel=1e-6)
        for g, both, npmi in zip(row["others"], row["counts"], row["npmi"], strict=True):
            pmi = math.log(both * rows / (count_F[f] * count_F[g]))
            assert npmi == pytest.approx(pmi / math.log(rows / both) if both < rows else 1, abs=1e-6)


@pytest.mark.parametrize("edges", [(0, ROWS), (0, 100, 101, 450, ROWS)])
@pytest.mark.parametrize(("most", "tile"), [(20, 1 << 22), (3, 100), (60, 1)])
def test_they_are_those_of_all_pairs(active_RF, kept_R, edges: tuple[int, ...], most: int, tile: int) -> None:
    sample, table = table_of(files(active_RF, kept_R, edges), most=most, tile=tile)
    assert sample.rows == kept_R.sum()
    check(table, active_RF[kept_R], most)
    assert table["others"][DEAD].as_py() == []
    assert (table["others"][TWIN][0].as_py(), table["jaccard"][TWIN][0].as_py()) == (20, 1.0)


@pytest.mark.parametrize("edges", [(0, ROWS), (0, 100, 101, 450, ROWS)])
def test_of_many_rows_those_with_the_smallest_hash_are_counted(active_RF, kept_R, edges: tuple[int, ...]) -> None:
    sample, table = table_of(files(active_RF, kept_R, edges), rows=150)
    rows = np.flatnonzero(kept_R)
    chosen = rows[np.argsort(by_hash(1000 + rows))[:150]]
    assert sample.rows == 150
    check(table, active_RF[np.sort(chosen)], 20)


def test_rows_with_many_entries_are_fewer(active_RF, kept_R, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = files(active_RF, kept_R, (0, ROWS))
    monkeypatch.setattr(coactivation, "ENTRIES", len(codes[0].row_N) // 4)
    sample, table = table_of(codes)
    assert sample.rows == kept_R.sum() // 4
    assert len(table) == FEATURES


def test_rows_without_a_feature_and_no_rows(kept_R) -> None:
    nothing = np.zeros((ROWS, FEATURES), np.bool_)
    sample, table = table_of(files(nothing, kept_R, (0, ROWS)))
    assert sample.rows == kept_R.sum()
    sample, none = table_of(files(nothing, np.zeros(ROWS, np.bool_), (0, ROWS)))
    assert sample.rows == 0
    assert table["others"].to_pylist() == none["others"].to_pylist() == [[]] * FEATURES


@pytest.mark.skipif(native.compiled() is None, reason=f"no compiled kernels: {native.reason()}")
@pytest.mark.parametrize("gathered", [1 << 24, 50, 1])
def test_numpy_gives_the_bits_of_the_compiled_kernel(
    active_RF, kept_R, gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, table = table_of(files(active_RF, kept_R, (0, ROWS)))
    monkeypatch.setattr(coactivation, "_GATHERED", gathered)
    counted = coactivation._counter(sample)
    for first, count in ((0, FEATURES), (7, 3), (DEAD, 1)):
        assert np.array_equal(counted(first, count).numpy(), together(sample, first, count))
    monkeypatch.setattr(native, "compiled", lambda: None)
    assert coactivation_table(sample).equals(table)
    again, _ = table_of(files(active_RF, kept_R, (0, 200, ROWS)))
    for mine, other in zip(astuple(sample), astuple(again), strict=True):
        assert mine.dtype == other.dtype
        assert np.array_equal(mine, other)
