"""The largest of each row against a whole sort, ties and all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.interpret.answers.largest import largest
from kubesae.sae import native

VALUES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, float("-inf")])


@given(st.lists(st.lists(VALUES, min_size=9, max_size=9), min_size=1, max_size=5), st.integers(1, 12))
def test_they_are_the_first_of_a_stable_sort(rows: list[list[float]], most: int) -> None:
    x_BN = torch.tensor(rows)
    expected = torch.sort(x_BN, dim=1, descending=True, stable=True)
    value_BK, column_BK = largest(x_BN, most)
    assert torch.equal(value_BK, expected.values[:, :most])
    assert torch.equal(column_BK, expected.indices[:, :most])


@given(st.lists(st.lists(VALUES, min_size=9, max_size=9), min_size=1, max_size=5), st.integers(1, 12))
def test_compiled_kernels_change_nothing(rows: list[list[float]], most: int) -> None:
    with_kernels = largest(torch.tensor(rows), most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "compiled", lambda: None)
        value_BK, column_BK = largest(torch.tensor(rows), most)
    assert torch.equal(value_BK, with_kernels[0])
    assert torch.equal(column_BK, with_kernels[1])


@pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
def test_of_nothing_there_is_nothing(shape: tuple[int, int]) -> None:
    value_BK, column_BK = largest(torch.zeros(shape), 2)
    assert value_BK.shape == column_BK.shape == (shape[0], min(2, shape[1]))
