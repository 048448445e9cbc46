"""The tar format, byte for byte: what the standard library reads is what was put in, and where the offsets say."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.experiment import sha256_hex
from kubesae.ledger import Block, Plan
from kubesae.shards import CODECS, Document, PartTar, codec, parse_block
from kubesae.shards.layout import END_OF_ARCHIVE, TAR_BLOCK, padded

ACTIVATIONS = ("acts.npy", "exponents.npy")


@dataclass
class Filled:
    """A tar and what was put into it."""

    tar: PartTar
    blocks: list[Block]
    documents: list[list[Document]]
    arrays: list[dict[str, npt.NDArray[Any]]]

    @property
    def data(self) -> bytes:
        return self.tar.buffer.tobytes()


def fill(plan: Plan, d_model: int, dtype: str, corpus: str, seed: int) -> Filled:
    part = plan.part(0, plan.parts(0) - 1)
    blocks = plan.blocks(part)
    documents = [[Document(0, block.rows, corpus, f"{corpus}/{block.index}", 7)] for block in blocks]
    tar = PartTar(
        blocks, documents, [plan.global_row(0, b.start) for b in blocks], layer=3, d_model=d_model, codec=codec(dtype)
    )
    generator = np.random.Generator(np.random.PCG64(seed))
    filled = Filled(tar, blocks, documents, [])
    for number, (block, tokens, flags) in enumerate(zip(blocks, tar.tokens, tar.flags, strict=True)):
        tar.put(number, 0, torch.from_numpy(generator.standard_normal((block.rows, d_model), np.float32)))
        activations = tar.stored[number].acts, tar.stored[number].exponents
        members = {ending: x.copy() for ending, x in zip(ACTIVATIONS, activations, strict=True) if x is not None}
        tokens[:] = generator.integers(0, 2**32, block.rows, np.uint32)
        flags[:] = generator.integers(0, 8, block.rows, np.uint8)
        filled.arrays.append(members | {"tokens.npy": tokens.copy(), "flags.npy": flags.copy()})
    return filled


@st.composite
def tars(draw: st.DrawFn) -> Filled:
    contexts_per_part = draw(st.integers(1, 6))
    plan = Plan(
        tokens=draw(st.integers(1, 300)),
        num_shards=1,
        context=draw(st.integers(2, 20)),
        contexts_per_part=contexts_per_part,
        contexts_per_block=draw(st.integers(1, contexts_per_part)),
    )
    corpus = draw(st.text(max_size=600).filter(lambda text: text.isprintable()))
    return fill(plan, draw(st.integers(1, 70)), draw(st.sampled_from(list(CODECS))), corpus, draw(st.integers(0, 99)))


@given(tars())
def test_the_standard_library_reads_what_was_put_in(filled: Filled) -> None:
    with tarfile.open(fileobj=io.BytesIO(filled.data), mode="r:") as archive:
        members = archive.getmembers()
        names = [
            f"{block.key}.{ending}"
            for block, arrays in zip(filled.blocks, filled.arrays, strict=True)
            for ending in (*arrays, "json")
        ]
        assert [member.name for member in members] == names
        content = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    for i, block in enumerate(filled.blocks):
        for ending, expected in filled.arrays[i].items():
            array = np.load(io.BytesIO(content[f"{block.key}.{ending}"]), allow_pickle=False)
            assert array.dtype == expected.dtype
            assert array.shape == expected.shape
            assert array.tobytes() == expected.tobytes()
        meta = json.loads(content[f"{block.key}.json"])
        assert meta["documents"] == [[d.start, d.tokens, d.corpus, d.document, d.offset] for d in filled.documents[i]]
        assert (meta["layer"], meta["row"]) == (3, block.start)


@given(tars())
def test_headers_and_padding_are_those_of_a_plain_ustar_archive(filled: Filled) -> None:
    data = filled.data
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            header = data[member.offset : member.offset + TAR_BLOCK]
            assert header[257:265] == b"ustar\x0000"
            owner = (member.mode, member.uid, member.gid, member.uname, member.gname, member.mtime)
            assert owner == (0o644, 0, 0, "", "", 0)
            assert member.isreg()
            end = member.offset_data + member.size
            assert not any(data[end : member.offset_data + padded(member.size)])
    assert len(data) % TAR_BLOCK == 0
    assert data[-END_OF_ARCHIVE:] == bytes(END_OF_ARCHIVE)


@given(tars())
def test_each_block_is_parsed_from_its_own_bytes_alone(filled: Filled) -> None:
    ends = [*filled.tar.offsets[1:], len(filled.data) - END_OF_ARCHIVE]
    for i, (start, end) in enumerate(zip(filled.tar.offsets, ends, strict=True)):
        block = parse_block(memoryview(filled.data[start:end]), "here")
        assert block.key == filled.blocks[i].key
        assert block.row == filled.blocks[i].start
        assert block.documents() == filled.documents[i]
        found = {"acts.npy": block.acts, "tokens.npy": block.tokens, "flags.npy": block.flags}
        if block.exponents is not None:
            found["exponents.npy"] = block.exponents
        assert found.keys() == filled.arrays[i].keys()
        assert all(found[ending].tobytes() == array.tobytes() for ending, array in filled.arrays[i].items())
        assert np.array_equal(block.float32(), filled.tar.stored[i].float32())


@given(tars())
def test_arrays_begin_at_multiples_of_their_items(filled: Filled) -> None:
    start = filled.tar.buffer.ctypes.data
    for arrays in ([stored.acts for stored in filled.tar.stored], filled.tar.tokens):
        assert all((array.ctypes.data - start) % 64 == 0 for array in arrays)


def test_the_same_values_give_the_same_bytes() -> None:
    plan = Plan(100, 1, 16, 5, 2)
    assert fill(plan, 7, "bfloat16", "über", 1).data == fill(plan, 7, "bfloat16", "über", 1).data
    assert fill(plan, 7, "bfloat16", "über", 1).data != fill(plan, 7, "bfloat16", "über", 2).data


def test_the_bytes_of_a_small_archive_are_pinned() -> None:
    """Another digest here is another stored format, which needs another format version."""
    plan = Plan(tokens=100, num_shards=1, context=16, contexts_per_part=5, contexts_per_block=2)
    blocks = plan.blocks(plan.part(0, 1))
    tar = PartTar(blocks, [[Document(0, 20, "c", "d", 7)]], [80], layer=3, d_model=7, codec=codec("bfloat16"))
    tar.stored[0].acts[:] = np.arange(140).reshape(20, 7)
    tar.tokens[0][:] = np.arange(20)
    tar.flags[0][:] = 1
    assert tar.offsets == [0]
    assert len(tar.buffer) == 4 * 1024 + 1024
    assert tar.buffer[:100].tobytes().rstrip(b"\0") == b"s0000-p000001-b0000.acts.npy"
    assert sha256_hex(tar.buffer.tobytes()) == "a3405b10b0d29236c97123fb53abcbe40275905fbaac1249103f005782c8769e"


def test_the_bytes_of_a_small_archive_of_8_bits_are_pinned() -> None:
    plan = Plan(tokens=100, num_shards=1, context=16, contexts_per_part=5, contexts_per_block=2)
    blocks = plan.blocks(plan.part(0, 1))
    tar = PartTar(blocks, [[Document(0, 20, "c", "d", 7)]], [80], layer=3, d_model=40, codec=codec("int8-block32"))
    tar.put(0, 0, torch.arange(-400.0, 400.0).reshape(20, 40) / 7)
    tar.tokens[0][:] = np.arange(20)
    tar.flags[0][:] = 1
    assert len(tar.buffer) == 1536 + 4 * 1024 + 1024
    assert sha256_hex(tar.buffer.tobytes()) == "4df2bbd100c08eb244b7f0de125baa2cd5bdc18ea44b1b1e35028fdbf27a0ae0"


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_padding_is_to_whole_tar_blocks(size: int) -> None:
    assert padded(size) == (size + 511) // 512 * 512
