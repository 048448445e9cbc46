"""Progress and resume are listings of the ledger, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import (
    Plan,
    committed_parts,
    keys,
    read_identity,
    read_record,
    record_list,
    record_list_hash,
    shard_progress,
)
from kubesae.store import open_store
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

PLAN = Plan(tokens=1003, num_shards=2, context=16, contexts_per_part=12, contexts_per_block=5)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """Give an empty store in a folder."""
    return open_store(str(tmp_path))


def commit(store: Store, shard: int, *parts: int) -> None:
    for part in parts:
        store.create(keys.record(shard, part), b"{}")


def test_an_empty_store_is_at_the_beginning(store: Store) -> None:
    state = shard_progress(store, PLAN, 0)
    assert (state.parts, state.total_parts, state.rows, state.total_rows) == (0, 3, 0, 502)
    assert state.last_commit is None
    assert not state.complete
    assert read_identity(store) is None
    assert record_list(store) == []


def test_progress_ends_before_the_first_gap(store: Store) -> None:
    commit(store, 0, 0, 2)
    state = shard_progress(store, PLAN, 0)
    assert (state.parts, state.rows, state.chunk(100)) == (1, 192, 1)
    assert sorted(committed_parts(store, 0)) == [0, 2]
    commit(store, 0, 1)
    state = shard_progress(store, PLAN, 0)
    assert (state.parts, state.rows, state.chunk(100)) == (3, 502, 6)
    assert state.complete
    assert state.last_commit is not None
    assert abs(state.last_commit - datetime.now(UTC)) < timedelta(minutes=5)


def test_shards_are_counted_apart_and_foreign_objects_not_at_all(folder_store: Store) -> None:
    commit(folder_store, 1, 0, 1)
    folder_store.put("activations/ledger/shard-0000/notes.txt", b"")
    folder_store.put("activations/ledger/shard-0000/part-000000.json.bak", b"")
    assert shard_progress(folder_store, PLAN, 0).parts == 0
    assert shard_progress(folder_store, PLAN, 1).parts == 2
    assert record_list(folder_store) == [keys.record(1, 0), keys.record(1, 1)]


def test_more_records_than_the_plan_has_parts_do_not_count(folder_store: Store) -> None:
    commit(folder_store, 0, 0, 1, 2, 3)
    state = shard_progress(folder_store, PLAN, 0)
    assert (state.parts, state.rows) == (3, 502)


def test_records_are_read_by_shard_and_part(folder_store: Store) -> None:
    identity = write_small(folder_store)
    record = read_record(folder_store, 1, 2)
    assert (record.shard, record.part, record.rows, record.identity) == (1, 2, 117, identity.sha256)
    with pytest.raises(MissingError):
        read_record(folder_store, 1, 3)
    folder_store.put(keys.record(1, 2), b"gone")
    with pytest.raises(DamagedError, match=r"shard-0001/part-000002\.json is not JSON"):
        read_record(folder_store, 1, 2)


def test_a_damaged_identity_is_said(folder_store: Store) -> None:
    folder_store.put(keys.IDENTITY, b"x")
    with pytest.raises(DamagedError, match=r"identity\.json is not JSON"):
        read_identity(folder_store)
    folder_store.put(keys.IDENTITY, b'{"model":"m"}')
    with pytest.raises(ConfigError, match=r"identity\.json: 12 fields are not right"):
        read_identity(folder_store)


def test_the_hash_of_a_record_list_is_of_its_sorted_keys_a_line_each() -> None:
    assert record_list_hash(["b", "a"]) == sha256_hex(b"a\nb\n")
    assert record_list_hash([]) == sha256_hex(b"")
