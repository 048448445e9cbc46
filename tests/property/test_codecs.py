"""What is stored comes back: exactly, or within half a step; and the same values give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kubesae.errors import DamagedError
from kubesae.shards import CODECS, Stored, codec
from kubesae.shards.block_scaled import BLOCK, LOWEST, TILE

BITS = arrays(np.uint32, st.integers(1, 64), elements=st.integers(0, 2**32 - 1))
EDGES = np.array(
    [0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00007FFF, 0x00008000, 0x00008001, 0x00017FFF, 0x00018000,
     0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0xFF800000],
    np.uint32,
)  # fmt: skip
# rows of bounded bits: any sign, any exponent below 2^64 (more is refused by the writer), any mantissa
ROWS = st.tuples(st.integers(1, 5), st.integers(1, 3 * BLOCK + 1)).flatmap(
    lambda shape: arrays(np.uint32, shape, elements=st.integers(0, 2 * 0x5F800000 - 1)).map(
        lambda bits: (bits >> 1 | bits << 31).astype(np.uint32).view(np.float32)
    )
)


def store(name: str, values: np.ndarray) -> Stored:
    """Return values [rows, width] as they are stored."""
    members = codec(name).arrays(*values.shape).values()
    stored = Stored(codec(name), *(np.zeros(shape, dtype) for dtype, shape in members))
    stored.write(slice(None), torch.from_numpy(values.copy()))
    return stored


def contents(stored: Stored) -> tuple[bytes, bytes]:
    return stored.acts.tobytes(), b"" if stored.exponents is None else stored.exponents.tobytes()


def steps(stored: Stored) -> np.ndarray:
    """Return the step of each value, float64 [rows, width]."""
    assert stored.exponents is not None
    return np.exp2(np.repeat(stored.exponents, BLOCK, axis=1)[:, : stored.acts.shape[1]].astype(np.float64))


@pytest.mark.parametrize("bits", [EDGES, np.arange(2**16, dtype=np.uint32) << 16])
def test_bfloat16_is_rounded_as_torch_does_and_comes_back_exactly(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    values = values[~np.isnan(values)][None]
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16)
    stored = store("bfloat16", values)
    assert stored.acts.tolist() == expected.view(torch.int16).tolist()
    assert np.array_equal(stored.float32().view(np.uint32), expected.float().numpy().view(np.uint32))


@given(BITS)
def test_float32_is_stored_as_it_is(bits: np.ndarray) -> None:
    stored = store("float32", bits.view(np.float32)[None])
    assert stored.acts.tobytes() == stored.float32().tobytes() == bits.tobytes()


@given(ROWS)
def test_8_bits_are_off_by_half_a_step_at_most_and_zeros_by_nothing(values: np.ndarray) -> None:
    stored = store("int8-block32", values)
    found = stored.float32()
    assert (np.abs(found.astype(np.float64) - values) <= steps(stored) / 2).all()
    assert (found[values == 0] == 0).all()
    assert not (stored.acts == -128).any()


@given(ROWS)
def test_the_largest_value_of_a_block_has_seven_bits(values: np.ndarray) -> None:
    stored = store("int8-block32", values)
    assert stored.exponents is not None
    missing = -values.shape[1] % BLOCK
    largest = np.abs(np.pad(stored.acts, ((0, 0), (0, missing)))).reshape(len(values), -1, BLOCK).max(axis=2)
    assert ((largest >= 64) | (stored.exponents == LOWEST)).all()


@given(ROWS)
def test_what_was_stored_is_stored_as_the_same_bytes_without_an_error(values: np.ndarray) -> None:
    once = store("int8-block32", values)
    again = store("int8-block32", once.float32())
    assert contents(once) == contents(again)
    assert not again.write(slice(None), torch.from_numpy(once.float32())).any()  # type: ignore[union-attr]


@given(ROWS)
def test_the_squared_error_is_told(values: np.ndarray) -> None:
    stored = store("int8-block32", values)
    told = stored.write(slice(None), torch.from_numpy(values.copy()))
    assert told is not None
    expected = ((stored.float32().astype(np.float64) - values) ** 2).sum(axis=1)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=2.0 ** (2 * LOWEST - 20))


@given(ROWS, st.data())
def test_bfloat16_and_float32_of_chosen_rows_are_the_same_values(values: np.ndarray, data: st.DataObject) -> None:
    rows = data.draw(arrays(np.int64, st.integers(0, 9), elements=st.integers(0, len(values) - 1)))
    for name in ("bfloat16", "int8-block32"):
        stored = store(name, values)
        memory = codec(name).memory(len(rows), values.shape[1])
        stored.gather(rows, memory)
        found = torch.from_numpy(memory).view(torch.bfloat16).float().numpy()
        assert found.tobytes() == stored.float32(rows).tobytes() == stored.float32()[rows].tobytes()


@pytest.mark.parametrize("width", [1, 31, 32, 33, 576, 7168])
def test_the_bytes_do_not_depend_on_how_rows_come_and_on_threads(width: int) -> None:
    rows = 2 * max(1, TILE // width) + 3
    values = np.random.Generator(np.random.PCG64(0)).standard_normal((rows, width), np.float32) ** 3
    whole, threads = store("int8-block32", values), torch.get_num_threads()
    pieces = Stored(whole.codec, np.zeros_like(whole.acts), np.zeros_like(whole.exponents))  # type: ignore[arg-type]
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        for start in range(0, rows, 97):
            part = slice(start, min(start + 97, rows))
            pieces.write(part, torch.from_numpy(values[part]))
    finally:
        torch.set_num_threads(threads)
    assert contents(whole) == contents(pieces)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 35])
def test_what_is_not_finite_shows_in_the_error(value: float, place: int) -> None:
    values = np.ones((3, 40), np.float32)
    values[1, place] = value
    stored = store("int8-block32", np.ones((3, 40), np.float32))
    told = stored.write(slice(None), torch.from_numpy(values))
    assert np.isfinite(told).tolist() == [True, False, True]  # type: ignore[arg-type]


def test_half_the_bytes() -> None:
    for width in (576, 2304, 4096, 7168):
        assert codec("int8-block32").row_bytes(width) <= 0.516 * codec("bfloat16").row_bytes(width)
    assert codec("int8-block32").row_bytes(33) == 35


@pytest.mark.parametrize("name", list(CODECS))
def test_rows_that_are_not_contiguous_are_stored(name: str) -> None:
    x = np.arange(15, dtype=np.float32).reshape(3, 5)
    members = codec(name).arrays(3, 3).values()
    stored = Stored(codec(name), *(np.zeros(shape, dtype) for dtype, shape in members))
    stored.write(slice(None), torch.from_numpy(x)[:, ::2])
    assert len(stored) == 3
    assert stored.acts.dtype == codec(name).disk
    assert np.array_equal(stored.float32(), x[:, ::2])


def test_an_unknown_storage_dtype_is_named() -> None:
    with pytest.raises(DamagedError, match="'int4' is unknown"):
        codec("int4")
