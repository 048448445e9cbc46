"""Sums of evaluation merge: any grouping of the same rows gives the same counts, and the same sums up to rounding."""

from __future__ import annotations

from dataclasses import fields

import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.evaluate.sums import RowSums

D, FEATURES = 3, 5
PARTS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 8)), min_size=3, max_size=3)


def draw(seed: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, x_hat = torch.randn(2, rows, D, generator=generator) * 10.0 ** int(torch.randint(-3, 4, (), generator=generator))
    return x, x_hat, torch.randint(0, FEATURES + 1, (rows,), generator=generator)


def of(*parts: tuple[int, int]) -> RowSums:
    drawn = [draw(seed, rows) for seed, rows in parts]
    return RowSums.of(*(torch.cat(tensors) for tensors in zip(*drawn, strict=True)), FEATURES)


def same(a: RowSums, b: RowSums) -> None:
    for field in fields(RowSums):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert left.dtype == right.dtype
        if left.dtype == torch.int64:
            assert torch.equal(left, right)
        else:
            torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-9)


@given(PARTS)
def test_any_grouping_is_one_pass_over_all_rows(parts: list[tuple[int, int]]) -> None:
    a, b, c = (of(part) for part in parts)
    whole = of(*parts)
    same((a + b) + c, whole)
    same(a + (b + c), whole)
    same(c + a + b, whole)


@given(st.integers(0, 10**6), st.integers(0, 8))
def test_no_rows_change_nothing(seed: int, rows: int) -> None:
    some = of((seed, rows))
    same(some + RowSums.zero(D, FEATURES), some)


@given(PARTS)
def test_metrics_of_merged_sums_are_those_of_all_rows(parts: list[tuple[int, int]]) -> None:
    merged, whole = of(parts[0]) + of(parts[1]) + of(parts[2]), of(*parts)
    for name in ("shrinkage", "shrinkage_about_mean", "norm_ratio", "mean_cosine"):
        a, b = getattr(merged, name)(), getattr(whole, name)()
        # about the mean of next to no rows nothing is left to divide by but rounding
        assert (a is None) == (b is None) or whole.rows < 2
        if a is not None and b is not None and whole.rows > 1 and abs(b) < 1e3:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
