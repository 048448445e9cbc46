"""Tokens of a shard are checked against the manifest before anything is computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.errors import DamagedError, MissingError
from kubesae.ledger import keys
from kubesae.store import open_store
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """Give a store with the small experiment."""
    store = open_store(str(tmp_path))
    write_small(store)
    return store


def test_ids_and_documents_of_every_shard(store: Store) -> None:
    write_small(store)
    manifest = require_manifest(store)
    for shard, rows in ((0, 502), (1, 501)):
        tokens = read_shard_tokens(store, manifest, shard)
        assert tokens.ids.shape == (rows,)
        assert tokens.ids.dtype == np.dtype("<u4")
        assert int(tokens.tokens.sum()) == rows
        documents = tokens.documents(90, 20)
        assert [(d.start, d.tokens, d.document, d.offset) for d in documents] == [
            (0, 10, f"document-{shard}-0", 90),
            (10, 10, f"document-{shard}-1", 0),
        ]


def test_any_changed_byte_of_the_ids_is_damage(small: Store) -> None:
    manifest = require_manifest(small)
    whole = small.read(keys.tokens(0))
    generator = np.random.Generator(np.random.PCG64(0))
    places = [*range(128), *generator.integers(128, len(whole), 30).tolist()]
    for at in places:
        data = bytearray(whole)
        data[at] ^= 0x15
        small.put(keys.tokens(0), bytes(data))
        try:
            ids = read_shard_tokens(small, manifest, 0).ids
        except DamagedError as error:
            assert f"{keys.tokens(0)} is not what tokens/manifest.json says" in str(error)  # noqa: PT017
        else:
            assert ids.tobytes() == whole[128:]  # a space of the header was changed


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_what_is_no_array_is_damage(small: Store, data: bytes) -> None:
    small.put(keys.tokens(0), data)
    with pytest.raises(DamagedError, match="Restore it"):
        read_shard_tokens(small, require_manifest(small), 0)


def test_other_documents_are_damage_and_none_are_missing(small: Store) -> None:
    manifest = require_manifest(small)
    small.put(keys.documents(0), small.read(keys.documents(1)))
    with pytest.raises(DamagedError, match=r"documents-0000\.parquet is not what tokens/manifest\.json says"):
        read_shard_tokens(small, manifest, 0)
    small.delete(keys.documents(0))
    with pytest.raises(MissingError):
        read_shard_tokens(small, manifest, 0)
