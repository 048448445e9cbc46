"""Moments merge: any grouping of the same rows gives the same counts, and the same sums up to rounding."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.errors import DamagedError
from kubesae.shards import Moments, Stored, codec
from kubesae.shards.moments import BINS, norm_bins

D_MODEL = 3


def draw(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    x = generator.standard_normal((rows, D_MODEL), np.float32) * np.float32(10.0 ** generator.integers(-3, 4))
    return x, generator.choice(np.array([0, 0, 1, 2, 5], np.uint8), rows)


def moments(x: np.ndarray, flags: np.ndarray) -> Moments:
    return Moments.of(Stored(codec("float32"), x), flags)[0]


PARTS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8)), min_size=3, max_size=3)


def same(a: Moments, b: Moments) -> None:
    assert (a.rows, a.count) == (b.rows, b.count)
    assert np.array_equal(a.histogram, b.histogram)
    np.testing.assert_allclose(a.total, b.total, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(a.squares, b.squares, rtol=1e-12)


@given(PARTS)
def test_merging_is_associative_and_commutative_and_zero_is_neutral(parts: list[tuple[int, int]]) -> None:
    a, b, c = (moments(*draw(seed, rows)) for seed, rows in parts)
    same((a + b) + c, a + (b + c))
    same(a + b, b + a)
    zero = a + Moments.zero(D_MODEL)
    assert (zero.total == a.total).all()
    assert (zero.squares == a.squares).all()


@given(PARTS)
def test_merged_parts_are_the_moments_of_all_rows(parts: list[tuple[int, int]]) -> None:
    drawn = [draw(seed, rows) for seed, rows in parts]
    x = np.concatenate([rows for rows, _ in drawn])
    flags = np.concatenate([flags for _, flags in drawn])
    merged = sum((moments(*each) for each in drawn), Moments.zero(D_MODEL))
    same(merged, moments(x, flags))
    kept = x[flags == 0].astype(np.float64)
    assert (merged.rows, merged.count) == (len(x), len(kept))
    assert merged.histogram.sum() == len(x)
    if len(kept):
        scale = float(np.abs(kept).max())
        np.testing.assert_allclose(merged.mean, kept.mean(axis=0), atol=1e-9 * scale)
        np.testing.assert_allclose(merged.variance, kept.var(axis=0), atol=1e-9 * scale**2)


@given(PARTS)
def test_the_file_is_read_back_exactly_and_is_the_same_for_the_same_values(parts: list[tuple[int, int]]) -> None:
    made = [moments(*draw(*parts[0])).to_bytes() for _ in range(2)]
    assert made[0] == made[1]
    read = Moments.from_bytes(made[0], "here")
    assert read.to_bytes() == made[0]
    assert isinstance(read.rows, int)


def test_no_time_is_in_the_file() -> None:
    with zipfile.ZipFile(io.BytesIO(Moments.zero(2).to_bytes())) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("norm", [0.0, 1e-30, 2.0**-16, 0.999, 1.0, 1.09, 1.091, 146.3, 26_168.0, 2.0**24, 1e30])
def test_norms_fall_into_bins_of_an_eighth_of_an_octave(norm: float) -> None:
    expected = 0 if norm == 0 else min(max(math.floor((math.log2(norm) + 16) * 8) + 1, 0), BINS - 1)
    assert norm_bins(np.array([norm], np.float32)).tolist() == [expected]


def test_another_npz_is_not_taken_for_moments() -> None:
    out = io.BytesIO()
    np.savez(out, rows=1, count=1, total=np.zeros(2), squares=np.zeros(3), histogram=np.zeros(BINS))
    with pytest.raises(DamagedError, match="other shapes"):
        Moments.from_bytes(out.getvalue(), "here")
