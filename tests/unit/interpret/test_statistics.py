from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesae.errors import DamagedError, KubesaeError
from kubesae.features import CodesFile
from kubesae.interpret.histogram import BINS, bins, edges, quantiles
from kubesae.interpret.kept import by_hash
from kubesae.interpret.state import from_bytes, to_bytes
from kubesae.interpret.statistics import PER_STRATUM, STRATA, Statistics
from kubesae.interpret.sums import ExactSums
from kubesae.sae import native

if TYPE_CHECKING:
    import numpy.typing as npt

FEATURES = 5
TOP_K = 3
SAMPLES = 2
FILE = CodesFile(key="codes", first_row=0, rows=1, entries=1, sha256="0" * 64)
# Few different values, so that ties are common, beside any float32 that can be an activation.
VALUES = st.sampled_from([0.0, 0.5, 1.0, 1.5]) | st.floats(0, 2.0**20, width=32)


@st.composite
def codes(draw: st.DrawFn, most: int = 12) -> npt.NDArray[np.float32]:
    """Dense activations, [rows, FEATURES]."""
    rows = draw(st.integers(1, most))
    values = draw(st.lists(VALUES, min_size=rows * FEATURES, max_size=rows * FEATURES))
    return np.array(values, np.float32).reshape(rows, FEATURES)


def as_bytes(statistics: Statistics) -> bytes:
    return to_bytes(statistics, FILE)


def statistics_of(f_NF: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], top_k: int = TOP_K) -> Statistics:
    statistics = Statistics.zero(FEATURES, top_k, SAMPLES)
    entry, feature = np.nonzero(f_NF[rows])
    statistics.add(rows[entry], feature, f_NF[rows][entry, feature], rows=len(rows), flagged=0)
    return statistics


def merged(*parts: Statistics) -> Statistics:
    """Their sum, which leaves them as they are."""
    total = Statistics.zero(FEATURES, TOP_K, SAMPLES)
    for part in parts:
        total.merge(part)
    return total


@settings(deadline=None)
@given(codes(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_any_split_in_any_order_gives_the_bits_of_one_pass(f_NF: npt.NDArray[np.float32], random, workers: int) -> None:
    rows = list(range(len(f_NF)))
    random.shuffle(rows)
    shares = [np.array(rows[i::workers], np.int64) for i in range(workers)]
    parts = [statistics_of(f_NF, share) for share in shares]
    assert as_bytes(merged(*parts)) == as_bytes(statistics_of(f_NF, np.arange(len(f_NF))))


@settings(deadline=None)
@given(codes(), codes(), codes())
def test_merging_is_associative_and_commutative_to_the_bit(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], third: npt.NDArray[np.float32]
) -> None:
    parts = (first, second, third)
    starts = np.cumsum([0, *map(len, parts)])
    all_NF = np.concatenate(parts)
    a, b, c = (statistics_of(all_NF, np.arange(starts[i], starts[i + 1])) for i in range(3))
    left, right, turned = merged(merged(a, b), c), merged(a, merged(b, c)), merged(c, a, b)
    assert as_bytes(left) == as_bytes(right) == as_bytes(turned)


@settings(deadline=None)
@given(codes())
def test_statistics_are_what_a_sort_and_a_sum_give(f_NF: npt.NDArray[np.float32]) -> None:
    found = statistics_of(f_NF, np.arange(len(f_NF)))
    top = found.top.entries()
    for feature in range(FEATURES):
        column = f_NF[:, feature]
        order = [row for row in np.lexsort((np.arange(len(column)), -column)) if column[row] > 0][:TOP_K]
        own = top.cell_N == feature
        assert top.row_N[own].tolist() == order
        assert top.value_N[own].tolist() == column[order].tolist()
        assert top.place_N[own].tolist() == list(range(len(order)))
        assert found.count_F[feature] == (column > 0).sum()
        assert found.max_F[feature] == column.max()
        active = [Fraction(float(value)) for value in column if value > 0]
        lost = Fraction(len(active), 2**53)
        total, squares = exact(found.sums, feature), exact(found.squares, feature)
        assert abs(total - sum(active)) <= lost
        assert abs(squares - sum(value**2 for value in active)) <= lost
        assert found.sums.total_F[feature] == pytest.approx(float(total), rel=1e-15)


def exact(sums: ExactSums, feature: int) -> Fraction:
    return sum((Fraction(int(word), 2 ** (26 * i)) for i, word in enumerate(sums.words_WF[:, feature])), Fraction(0))


@settings(deadline=None)
@given(codes(most=40))
def test_samples_are_the_rows_of_the_smallest_hashes(f_NF: npt.NDArray[np.float32]) -> None:
    found = statistics_of(f_NF, np.arange(len(f_NF)))
    hashes = by_hash(np.arange(len(f_NF))).tolist()
    for kept, cells, most in ((found.sample, FEATURES, SAMPLES), (found.strata, FEATURES * STRATA, PER_STRATUM)):
        entries = kept.entries()
        for cell in range(cells):
            feature, stratum = (cell, None) if cells == FEATURES else divmod(cell, STRATA)
            active = np.flatnonzero(f_NF[:, feature] > 0)
            rows = [row for row in active.tolist() if stratum is None or bin_of(f_NF[row, feature]) % STRATA == stratum]
            expected = sorted(rows, key=hashes.__getitem__)[:most]
            assert entries.row_N[entries.cell_N == cell].tolist() == expected
            assert entries.value_N[entries.cell_N == cell].tolist() == f_NF[expected, feature].tolist()


def bin_of(value: float) -> int:
    """By the definition: two bins to the octave from 2^-16 on, the ends open."""
    mantissa, exponent = math.frexp(value)
    return min(max(2 * (exponent - 1 + 16) + (mantissa >= 0.75), 0), BINS - 1)


@settings(deadline=None)
@given(codes(most=40))
def test_the_histogram_counts_active_rows_by_bin(f_NF: npt.NDArray[np.float32]) -> None:
    found = statistics_of(f_NF, np.arange(len(f_NF)))
    for feature in range(FEATURES):
        expected = np.bincount([bin_of(value) for value in f_NF[:, feature] if value > 0], minlength=BINS)
        assert found.histogram_FB[feature].tolist() == expected.tolist()


@settings(deadline=None)
@given(codes())
def test_stored_statistics_are_read_to_the_bit(f_NF: npt.NDArray[np.float32]) -> None:
    data = as_bytes(statistics_of(f_NF, np.arange(len(f_NF))))
    assert to_bytes(*from_bytes(data, FEATURES, TOP_K, SAMPLES, "here")) == data


@pytest.mark.parametrize("change", ["other sizes", "cut", "a byte"])
def test_what_does_not_hold_statistics_is_damage(change: str) -> None:
    data = as_bytes(statistics_of(np.ones((3, FEATURES), np.float32), np.arange(3)))
    features = FEATURES + (change == "other sizes")
    if change == "cut":
        data = data[: len(data) // 2]
    elif change == "a byte":
        at = len(data) // 2
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(DamagedError, match="here does not hold statistics"):
        from_bytes(data, features, TOP_K, SAMPLES, "here")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("name", "value"),
    [("sample_cell", [FEATURES]), ("strata_cell", [1 << 28]), ("top_cell", [-(1 << 28)]), ("top_row", [1, 2])],
)
def test_entries_that_fit_no_feature_are_damage(
    name: str, value: list[int], monkeypatch: pytest.MonkeyPatch, *, compiled: bool
) -> None:
    """The archive is whole, so its checksums say nothing; nothing is written beside the tables."""
    whole = np.load(io.BytesIO(as_bytes(statistics_of(np.ones((1, FEATURES), np.float32), np.arange(1)))))
    arrays = dict(whole)
    kind = name.removesuffix("_cell").removesuffix("_row")
    for column in ("cell", "value", "row"):
        arrays[f"{kind}_{column}"] = arrays[f"{kind}_{column}"][:1]
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays | {name: np.array(value, arrays[name].dtype)})
    if not compiled:
        monkeypatch.setattr(native, "compiled", lambda: None)
    with pytest.raises(DamagedError, match="here does not hold statistics"):
        from_bytes(out.getvalue(), FEATURES, TOP_K, SAMPLES, "here")


def test_entries_that_are_put_aside_are_sorted_in_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiled kernels keep, numpy keeps too, at once and after many that were put aside."""
    generator = np.random.default_rng(0)
    # few different activations: most are as large as others
    f_NF = np.ceil(generator.random((3000, FEATURES), np.float32) * 16) / 16
    at_once = as_bytes(statistics_of(f_NF, np.arange(len(f_NF))))
    monkeypatch.setattr(native, "compiled", lambda: None)
    assert as_bytes(statistics_of(f_NF, np.arange(len(f_NF)))) == at_once
    monkeypatch.setattr("kubesae.interpret.kept._FEW", 50)
    total = Statistics.zero(FEATURES, TOP_K, SAMPLES)
    for rows in np.split(generator.permutation(len(f_NF)), 100):
        total.merge(statistics_of(f_NF, rows))
    assert as_bytes(total) == at_once


def test_a_sample_is_uniform() -> None:
    """Each of 4000 rows is in the sample of 40 with a chance of 1%: of 100 runs of rows, each about once."""
    times = np.zeros(4000)
    for seed in range(100):
        rows = np.arange(4000) + 1_000_000 * seed
        times[np.argsort(by_hash(rows))[:40]] += 1
    assert times.sum() == 4000
    chi_squared = ((times.reshape(40, 100).sum(1) - 100) ** 2 / 100).sum()
    assert 15 < chi_squared < 75  # 39 degrees of freedom: both ends beyond 1 in 1000


def test_the_mean_runs_over_all_unflagged_rows_and_mean_active_over_active_ones() -> None:
    statistics = Statistics.zero(FEATURES, TOP_K, SAMPLES)
    entries = (np.array([7, 9]), np.array([2, 2]), np.array([1.0, 4.0], np.float32))
    statistics.add(*entries, rows=10, flagged=3)
    assert (statistics.rows, statistics.flagged) == (10, 3)
    assert statistics.mean_F[2] == 0.5
    assert statistics.mean_active_F[2] == 2.5
    assert statistics.frequency_F[2] == 0.2
    assert statistics.mean_active_F[0] == 0.0


def test_small_activations_keep_their_sum() -> None:
    statistics = Statistics.zero(1, 1, 1)
    values = np.full(100_000, 1e-4, np.float32)
    statistics.add(np.arange(100_000), np.zeros(100_000, np.int64), values, rows=100_000, flagged=0)
    assert statistics.mean_F[0] == pytest.approx(1e-4, rel=1e-5)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (1e30, "diverged")])
def test_activations_that_cannot_be_summed_are_named(value: float, message: str) -> None:
    statistics = Statistics.zero(FEATURES, TOP_K, SAMPLES)
    with pytest.raises(KubesaeError, match=f"Feature 3 .*{message}"):
        statistics.add(np.array([0]), np.array([3]), np.array([value], np.float32), rows=1, flagged=0)


def test_sums_that_would_overflow_are_named() -> None:
    sums, more = ExactSums.zero(2), ExactSums.zero(2)
    sums.words_WF[0, 1] = more.words_WF[0, 1] = 2**62
    with pytest.raises(KubesaeError, match=r"Feature 1 .*diverged"):
        sums.merge(more)


def test_statistics_of_other_sizes_do_not_add() -> None:
    with pytest.raises(ValueError, match="do not add"):
        Statistics.zero(5, 3, 2).merge(Statistics.zero(5, 4, 2))


def test_spread_over_active_rows() -> None:
    statistics = Statistics.zero(1, TOP_K, SAMPLES)
    values = np.array([1, 2, 4, 5], np.float32)
    statistics.add(np.arange(4), np.zeros(4, np.int64), values, rows=10, flagged=0)
    assert statistics.mean_square_active_F[0] == 11.5
    assert statistics.std_active_F[0] == pytest.approx(np.sqrt(2.5), rel=1e-15)


def test_bins_begin_at_their_edges() -> None:
    begin = edges()
    assert (begin[0], begin[32], begin[33], begin[34], begin[-1]) == (2.0**-16, 1.0, 1.5, 2.0, 2.0**16)
    at = begin[:-1].astype(np.float32)
    assert bins(at).tolist() == list(range(BINS))
    assert bins(np.nextafter(at, np.float32(0))).tolist() == [0, *range(BINS - 1)]
    assert bins(np.array([1e-40, 3e38], np.float32)).tolist() == [0, BINS - 1]


def test_quantiles_are_near_the_share_of_smaller_activations() -> None:
    values = np.random.default_rng(0).exponential(3, 20_000).astype(np.float32)
    statistics = Statistics.zero(1, 1, 1)
    nothing = np.zeros(len(values), np.int64)
    statistics.add(np.arange(len(values)), nothing, values, rows=len(values), flagged=0)
    estimated = quantiles(statistics.histogram_FB, nothing, values)
    actual = np.argsort(np.argsort(values)) / len(values)
    assert np.abs(estimated - actual).max() < 0.02


def test_of_two_activations_the_larger_one_lies_in_the_last_decile():
    """Activations of the last bin are far above its edge: the share is rounded to 1, and 1 is no decile."""
    value_N = np.float32([1, 70000])
    count_FB = np.bincount(bins(value_N), minlength=BINS)[None]
    share_N = quantiles(count_FB, np.zeros(2, np.int64), value_N)
    assert np.floor(10 * share_N).tolist() == [0, 9]
