"""Whatever the bytes are, a reader says that they are damaged; it never crashes and never loads a pickle."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kubesae.errors import DamagedError
from kubesae.ledger import Plan, parse_record
from kubesae.shards import Document, Moments, PartTar, Stored, codec, parse_block
from kubesae.shards.layout import END_OF_ARCHIVE

ROWS, D_MODEL = 12, 3


def one_block(dtype: str = "bfloat16") -> bytes:
    plan = Plan(ROWS, 1, 4, 3, 3)
    blocks = plan.blocks(plan.part(0, 0))
    tar = PartTar(blocks, [[Document(0, ROWS, "c", "d", 0)]], [0], layer=0, d_model=D_MODEL, codec=codec(dtype))
    tar.stored[0].acts[:] = np.arange(ROWS * D_MODEL, dtype=np.int16).reshape(ROWS, D_MODEL)
    return tar.buffer[:-END_OF_ARCHIVE].tobytes()


BLOCK = one_block()
EIGHT = one_block("int8-block32")
MOMENTS = Moments.of(Stored(codec("float32"), np.ones((4, 2), np.float32)), np.zeros(4, np.uint8))[0].to_bytes()
HEADERS = [512 * n for n in (0, 2, 4, 6)]


def is_damaged_or_whole(data: bytes) -> bool:
    """Parse a block, and read all there is of it; damage that leaves a valid block is none of the parser's business."""
    try:
        block = parse_block(memoryview(data), "the tar")
        documents = block.documents()
    except DamagedError:
        return True
    return len(block.float32()) == len(block.tokens) == len(block.flags) and len(documents) == len(
        block.meta["documents"]
    )


def with_checksum(data: bytearray, header: int) -> None:
    """Make the checksum of a member's header fit, as a foreign archive's does."""
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])


def test_the_block_is_whole_to_begin_with() -> None:
    assert parse_block(memoryview(BLOCK), "the tar").acts[1].tolist() == [3, 4, 5]


@given(st.integers(0, len(BLOCK) - 512))
def test_a_block_cut_short_is_damaged(length: int) -> None:
    with pytest.raises(DamagedError, match="the tar"):
        parse_block(memoryview(BLOCK[:length]), "the tar")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(BLOCK) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_are_never_a_crash(changes: list[tuple[int, int]]) -> None:
    data = bytearray(BLOCK)
    for at, value in changes:
        data[at] = value
    assert is_damaged_or_whole(bytes(data))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(EIGHT) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(EIGHT)))
def test_damaged_blocks_of_8_bits_are_never_a_crash(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(EIGHT)
    for at, value in changes:
        data[at] = value
    assert is_damaged_or_whole(bytes(data))
    assert is_damaged_or_whole(bytes(data[:length]))


ACTS, EXPONENTS, REST = EIGHT[:1024], EIGHT[1024:2048], EIGHT[2048:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ACTS + REST, "is int8-block32 without exponents.npy"),
        (BLOCK[:1024] + EXPONENTS + BLOCK[1024:], "is bfloat16 with exponents.npy"),
        (ACTS + EXPONENTS.replace(b"(12, 1)", b"(1, 12)") + REST, r"exponents.npy has shape \(1, 12\); \(12, 1\)"),
        (ACTS + EXPONENTS.replace(b"|i1", b"|u1") + REST, "exponents.npy has dtype |u1"),
        (EXPONENTS + ACTS + REST, "stands where"),
    ],
)
def test_exponents_that_do_not_fit_are_said(data: bytes, message: str) -> None:
    assert len(parse_block(memoryview(EIGHT), "the tar").float32()) == ROWS
    with pytest.raises(DamagedError, match=message):
        parse_block(memoryview(data), "the tar")


@settings(max_examples=300)
@given(st.sampled_from(HEADERS), st.lists(st.tuples(st.integers(0, 344), st.integers(0, 255)), max_size=8))
@example(0, [(124, 0xFF), (125, 0xFF)])
def test_foreign_headers_with_a_right_checksum_are_never_a_crash(header: int, changes: list[tuple[int, int]]) -> None:
    data = bytearray(BLOCK)
    for at, value in changes:
        data[header + at] = value
    with_checksum(data, header)
    assert is_damaged_or_whole(bytes(data))


@settings(max_examples=300)
@given(st.sampled_from(HEADERS[:3]), st.binary(min_size=1, max_size=100), st.integers(0, 117))
@example(0, b"{'descr': '|O', 'fortran_order': False, 'shape': (12, 3), }", 0)
@example(0, b"{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999999999999, 3), }", 0)
@example(0, b"{'descr': '<i2', 'fortran_order': False, 'shape': (-4, -9), }", 0)
@example(0, b"{'descr': '<i2', 'fortran_order': False, 1: (12, 3), }", 0)
@example(0, b"{'descr': '<i2', 'fortran_order': False, 'shape': (12L, 3L), }", 0)
@example(0, b"{[]: 1}", 0)
@example(0, b"(" * 100, 0)
@example(0, b"'''", 0)
def test_foreign_npy_headers_are_never_a_crash(header: int, text: bytes, at: int) -> None:
    start = header + 512 + 10
    data = bytearray(BLOCK)
    data[start + at : start + at + len(text)] = text
    assert is_damaged_or_whole(bytes(data[: len(BLOCK)]))


@settings(max_examples=200)
@given(st.binary(max_size=80))
@example(b'{"documents":[1],"dtype":"bfloat16","layer":0,"row":0}')
@example(b'{"documents":[[1]],"dtype":"bfloat16","layer":0,"row":0}')
@example(b'{"documents":[],"dtype":"int4","layer":0,"row":0}')
@example(b"[]")
@example(b"\xff\xfe")
def test_foreign_json_is_never_a_crash(text: bytes) -> None:
    data = bytearray(BLOCK[: HEADERS[3]])
    info = tarfile.TarInfo("s0000-p000000-b0000.json")
    info.size = len(text)
    data += info.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)
    assert is_damaged_or_whole(bytes(data))


@settings(max_examples=200)
@given(st.binary(max_size=2000))
def test_noise_is_never_a_block(data: bytes) -> None:
    with pytest.raises(DamagedError, match="the tar"):
        parse_block(memoryview(data), "the tar")


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(MOMENTS) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(MOMENTS))
)
def test_damaged_moments_are_never_a_crash(changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(MOMENTS)
    for at, value in changes:
        data[at] = value
    for damaged in (bytes(data), MOMENTS[:length]):
        try:
            moments = Moments.from_bytes(damaged, "the moments")
        except DamagedError:
            continue
        assert moments.total.shape == moments.squares.shape


@given(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
@example(b"[1]")
@example(b"{}")
@example(b'{"format":1,"layers":[{}]}')
def test_noise_is_never_a_record(data: bytes) -> None:
    with pytest.raises(DamagedError, match="the record"):
        parse_record(data, "the record")
