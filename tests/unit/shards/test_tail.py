"""The tail of a block: what is read without the activations is what a whole read gives, and costs one small read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kubesae.errors import DamagedError, MissingError
from kubesae.shards import CODECS, read_block, read_flags, read_index, read_row, read_tail
from kubesae.store import open_store
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.experiment import DataIdentity
    from kubesae.store import Store


@pytest.fixture(scope="module", params=list(CODECS))
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DataIdentity]:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    return store, write_small(store, storage=request.param)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_a_tail_is_the_end_of_the_block(data: tuple[Store, DataIdentity], number: int) -> None:
    store, identity = data
    ref = read_index(store, identity, 4)[number]
    block, tail = read_block(store, ref), read_tail(store, ref, identity)
    assert (tail.key, tail.meta, tail.documents()) == (block.key, block.meta, block.documents())
    assert np.array_equal(tail.tokens, block.tokens)
    assert np.array_equal(tail.flags, block.flags)
    assert np.array_equal(read_flags(store, ref, identity), block.flags)
    for row in (0, ref.rows - 1):
        assert np.array_equal(read_row(store, ref, identity, row), block.float32()[row])


def test_another_block_is_refused(data: tuple[Store, DataIdentity]) -> None:
    store, identity = data
    first, second = read_index(store, identity, 4)[:2]
    moved = replace(first, offset=second.offset, bytes=second.bytes)
    with pytest.raises(DamagedError, match="where its record says"):
        read_tail(store, moved, identity)
    with pytest.raises(DamagedError, match="where its record says"):
        read_flags(store, moved, identity)
    with pytest.raises(DamagedError, match="no member header"):
        read_tail(store, replace(first, offset=first.offset + 512), identity)
    with pytest.raises(DamagedError, match=r"no member header|ends"):
        read_tail(store, replace(first, bytes=0), identity)
    with pytest.raises(MissingError):
        read_flags(store, replace(first, tar="activations/none.tar"), identity)


def test_a_truncated_tar_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    identity = write_small(store)
    ref = read_index(store, identity, 1)[0]
    store.put(ref.tar, store.read(ref.tar, 0, ref.offset + ref.bytes - 600))
    with pytest.raises(DamagedError, match="too early"):
        read_tail(store, ref, identity)
