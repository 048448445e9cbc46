"""bfloat16 as int16 is bit for bit what torch makes of the same float32, and comes back exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kubesae.errors import DamagedError
from kubesae.shards import CODECS, codec

BITS = arrays(np.uint32, st.integers(1, 64), elements=st.integers(0, 2**32 - 1))
EDGES = np.array(
    [0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00007FFF, 0x00008000, 0x00008001, 0x00017FFF, 0x00018000,
     0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0xFF800000],
    np.uint32,
)  # fmt: skip


def as_torch(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 values with these bits that are not NaN, and their bfloat16 bits by torch."""
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    rounded = torch.from_numpy(values.copy()).to(torch.bfloat16)
    return values, rounded.view(torch.int16).numpy()


@given(BITS)
def test_rounding_is_that_of_torch(bits: np.ndarray) -> None:
    values, expected = as_torch(bits)
    assert codec("bfloat16").from_float32(values).tolist() == expected.tolist()


def test_rounding_of_subnormals_halves_and_the_largest_numbers_is_that_of_torch() -> None:
    values, expected = as_torch(EDGES)
    stored = codec("bfloat16").from_float32(values)
    assert stored.dtype == np.dtype("<i2")
    assert [hex(x & 0xFFFF) for x in stored.tolist()] == [hex(x & 0xFFFF) for x in expected.tolist()]


def test_every_bfloat16_comes_back_exactly() -> None:
    stored = np.arange(2**16, dtype=np.uint16).view(np.int16)
    values = codec("bfloat16").to_float32(stored)
    expected = torch.from_numpy(stored).view(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))
    finite = np.isfinite(values)
    assert np.array_equal(codec("bfloat16").from_float32(values[finite]), stored[finite])


@given(BITS)
def test_float32_is_stored_as_it_is(bits: np.ndarray) -> None:
    stored = codec("float32").from_float32(bits.view(np.float32))
    assert stored.tobytes() == bits.tobytes()
    assert codec("float32").to_float32(stored).tobytes() == bits.tobytes()


@pytest.mark.parametrize("name", list(CODECS))
def test_shapes_are_kept(name: str) -> None:
    x = np.zeros((3, 5), np.float32)[:, ::2]
    stored = codec(name).from_float32(x)
    assert stored.shape == codec(name).to_float32(stored).shape == x.shape
    assert stored.dtype == codec(name).disk


def test_an_unknown_storage_dtype_is_named() -> None:
    with pytest.raises(DamagedError, match="'int4' is unknown"):
        codec("int4")
