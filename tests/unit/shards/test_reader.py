"""Reading blocks back: by one ranged read, into a buffer of the caller's, and refused when they are others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.errors import DamagedError, MissingError
from kubesae.ledger import Plan
from kubesae.shards import BlockRef, read_block, read_index
from kubesae.store import open_store
from small_experiment import D_MODEL, write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[BlockRef]]:
    """Give a store with the small experiment, which tests leave as it is, and its blocks of layer 4."""
    store = open_store(str(tmp_path_factory.mktemp("small")))
    return store, read_index(store, write_small(store), 4)


def test_every_block_is_what_prepare_and_the_plan_say(store: Store) -> None:
    identity = write_small(store)
    plan, manifest = Plan.of(identity), require_manifest(store)
    row = 0
    for ref in read_index(store, identity, 4):
        block = read_block(store, ref)
        tokens = read_shard_tokens(store, manifest, ref.shard)
        start = plan.locate(ref.row)[1]
        assert (block.key, block.row, block.meta["layer"], block.dtype) == (ref.key, row, 4, "bfloat16")
        assert np.array_equal(block.tokens, tokens.ids[start : start + ref.rows])
        assert block.documents() == tokens.documents(start, ref.rows)
        assert block.acts.shape == (ref.rows, D_MODEL)
        assert block.acts.dtype == np.int16
        assert np.isfinite(block.float32()).all()
        row += ref.rows
    assert row == 1003


def test_a_block_is_read_into_the_callers_buffer(small: tuple[Store, list[BlockRef]]) -> None:
    store, refs = small
    buffer = bytearray(max(ref.bytes for ref in refs) + 100)
    for ref in refs:
        block = read_block(store, ref, memoryview(buffer))
        assert np.array_equal(block.acts, read_block(store, ref).acts)
        assert np.shares_memory(block.acts, np.frombuffer(buffer, np.uint8))


def test_storage_as_float32_keeps_every_bit(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    identity = write_small(store, storage="float32", layers=[4])
    block = read_block(store, read_index(store, identity, 4)[0])
    assert block.dtype == "float32"
    assert block.acts.dtype == np.float32
    assert np.array_equal(block.float32(), block.acts)
    assert (block.acts.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize(
    "change",
    [{"key": "s0000-p000000-b0001"}, {"row": 1}, {"rows": 79}, {"layer": 1}],
    ids=lambda change: next(iter(change)),
)
def test_another_block_than_the_record_says_is_refused(
    small: tuple[Store, list[BlockRef]], change: dict[str, int | str]
) -> None:
    store, refs = small
    with pytest.raises(DamagedError, match="where its record says"):
        read_block(store, replace(refs[0], **change))


def test_a_wrong_place_in_the_tar_is_refused(small: tuple[Store, list[BlockRef]]) -> None:
    store, refs = small
    for change in ({"offset": 512}, {"bytes": 512}, {"bytes": refs[0].bytes - 1024}, {"offset": 10**9}):
        with pytest.raises(DamagedError):
            read_block(store, replace(refs[0], **change))


def test_a_tar_that_is_not_there_is_missing(small: tuple[Store, list[BlockRef]]) -> None:
    store, refs = small
    with pytest.raises(MissingError):
        read_block(store, replace(refs[0], tar="activations/none.tar"))
