"""Packed tensors are a safetensors file, and lie in it."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.sae.packing import pack, packed_bytes

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=3)
TENSORS = st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=6)


@given(TENSORS)
def test_the_library_reads_what_was_packed(wanted: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    wanted.pop("__metadata__", None)  # the format's own
    tensors = {name: torch.randn(shape).mul(100).to(dtype) for name, (dtype, shape) in wanted.items()}
    data, inside = pack(tensors)
    read = safetensors.torch.load(bytes(data))
    assert read.keys() == inside.keys() == tensors.keys()
    for name, tensor in tensors.items():
        for other in (read[name], inside[name]):
            assert other.dtype == tensor.dtype
            assert torch.equal(other, tensor)
    assert packed_bytes(tensors) <= len(data)


def test_tensors_of_any_layout_are_copied_where_they_belong() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    data, inside = pack({"turned": whole.T, "column": whole[:, 1]})
    whole.zero_()
    assert inside["turned"].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert safetensors.torch.load(bytes(data))["column"].tolist() == [1, 5, 9]
    inside["column"].fill_(7)
    assert safetensors.torch.load(bytes(data))["column"].tolist() == [7, 7, 7]


def test_a_type_without_a_name_is_refused() -> None:
    with pytest.raises(KeyError):
        pack({"complex": torch.zeros(2, dtype=torch.complex64)})
