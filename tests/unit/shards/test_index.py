"""The index: one row a block, the same from the Parquet file and from the records, refused for other data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import DataIdentity, canonical_json
from kubesae.ledger import Plan, keys, read_identity, read_record, record_list
from kubesae.shards import BlockRef, blocks_of, read_index, write_index
from kubesae.store import open_store
from small_experiment import small_experiment, write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture
def small(tmp_path: Path) -> Store:
    """Give a store with the small experiment."""
    store = open_store(str(tmp_path))
    write_small(store)
    return store


def identity_of(store: Store) -> DataIdentity:
    identity = read_identity(store)
    assert identity is not None
    return identity


def all_blocks(store: Store) -> list[BlockRef]:
    plan = Plan.of(identity_of(store))
    records = [read_record(store, *keys.parse_record(key)) for key in record_list(store)]  # type: ignore[misc]
    return [ref for record in records for ref in blocks_of(record, plan)]


def test_blocks_tile_the_rows_and_the_bytes_of_their_tars(small: Store) -> None:
    refs = [ref for ref in all_blocks(small) if ref.layer == 4]
    assert [ref.row for ref in refs] == [sum(other.rows for other in refs[:i]) for i in range(len(refs))]
    assert sum(ref.rows for ref in refs) == 1003
    ends: dict[str, int] = {}
    for ref in refs:
        assert ref.offset == ends.get(ref.tar, 0)
        ends[ref.tar] = ref.offset + ref.bytes
    assert {tar: small.size(tar) - 1024 for tar in ends} == ends


def test_the_index_says_what_the_records_say(store: Store) -> None:
    identity = write_small(store)
    from_records = {layer: read_index(store, identity, layer) for layer in identity.layers}
    write_index(store, identity, all_blocks(store))
    assert {layer: read_index(store, identity, layer) for layer in identity.layers} == from_records
    assert len(from_records[1]) == len(from_records[4]) == 16
    for layer in identity.layers:
        urls = store.read(keys.layer_urls(layer)).decode().splitlines()
        assert urls == list(dict.fromkeys(f"{store.url}/{ref.tar}" for ref in from_records[layer]))


def test_the_index_alone_is_read_when_it_is_there(small: Store) -> None:
    identity = identity_of(small)
    write_index(small, identity, all_blocks(small))
    for key in record_list(small):
        small.delete(key)
    assert len(read_index(small, identity, 1)) == 16


def test_other_tools_read_it_as_a_table(small: Store) -> None:
    import io

    import pyarrow.parquet as pq

    write_index(small, identity_of(small), all_blocks(small))
    rows = pq.read_table(io.BytesIO(small.read(keys.INDEX))).to_pylist()
    assert len(rows) == 32
    assert list(rows[0]) == ["layer", "row", "rows", "shard", "part", "block", "key", "tar", "offset", "bytes"]
    assert rows[0]["key"] == "s0000-p000000-b0000"


def test_an_index_of_other_data_is_refused(small: Store) -> None:
    identity = identity_of(small)
    write_index(small, identity.model_copy(update={"tokens": 7}), all_blocks(small))
    with pytest.raises(
        DamagedError, match=r"index\.parquet is the index of data with identity .* Run `kubesae repair`"
    ):
        read_index(small, identity, 1)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not Parquet at all"])
def test_a_damaged_index_is_refused(small: Store, data: bytes) -> None:
    small.put(keys.INDEX, data)
    with pytest.raises(DamagedError, match=r"index\.parquet is not an index"):
        read_index(small, identity_of(small), 1)


def test_a_parquet_file_of_something_else_is_refused(small: Store) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), out)
    small.put(keys.INDEX, out.getvalue())
    with pytest.raises(DamagedError, match="Run `kubesae repair`"):
        read_index(small, identity_of(small), 1)


def test_a_layer_that_was_not_collected_and_nothing_committed(small: Store) -> None:
    identity = identity_of(small)
    with pytest.raises(ConfigError, match=r"Layer 2 was not collected at .*: it has layers \[1, 4\]"):
        read_index(small, identity, 2)
    for key in record_list(small):
        small.delete(key)
    with pytest.raises(ConfigError, match="No activations are committed"):
        read_index(small, identity, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"identity": "0" * 64},
        {"part": 1},
        {"shard": 9},
        {"blocks": [0]},
        {"blocks": [0, 0, 0]},
        {"blocks": [0, 10**9, 10**10]},
        {"bytes": 5},
    ],
)
def test_a_record_that_does_not_fit_is_never_followed(small: Store, change: dict[str, Any]) -> None:
    key = keys.record(0, 0)
    values = json.loads(small.read(key))
    for name, value in change.items():
        target = values["layers"][0] if name in {"blocks", "bytes"} else values
        target[name] = value
    small.put(key, canonical_json(values))
    with pytest.raises(DamagedError, match="Run `kubesae verify`"):
        read_index(small, identity_of(small), 1)


def test_a_record_outside_the_plan_is_never_followed(small: Store) -> None:
    record = read_record(small, 0, 0).model_copy(update={"part": 3})
    small.put(keys.record(0, 3), record.to_json())
    with pytest.raises(DamagedError, match="the plan has no part 3 in shard 0"):
        read_index(small, identity_of(small), 1)


def test_the_small_experiment_has_every_edge() -> None:
    plan = Plan(1003, 2, 16, 12, 5)
    experiment = small_experiment("x")
    assert (experiment.tokens, experiment.num_shards, experiment.context) == (1003, 2, 16)
    assert [[block.rows for block in plan.blocks(plan.part(0, p))] for p in range(3)] == [
        [80, 80, 32], [80, 80, 32], [80, 38],
    ]  # fmt: skip
