"""Verify finds every kind of damage and calls it by its name, where it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kubesae.experiment import sha256_hex
from kubesae.fixture.run import WORDS
from kubesae.ledger import keys, read_record
from kubesae.shards import BlockData, blocks_of, parse_block
from small_experiment import edit_record
from verified import PLAN, RECORD, kinds, layer_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.store import Store
    from verified import Mode


def forge_tar(store: Store, change: Callable[[bytearray, list[BlockData]], None]) -> str:
    """Change bytes of the first tar of shard 0, part 0, and make digest, name and record fit; return its key."""
    record = read_record(store, 0, 0)
    layer = record.layers[0]
    data = bytearray(store.read(layer.key))
    refs = [ref for ref in blocks_of(record, PLAN) if ref.layer == layer.layer]
    blocks = [parse_block(memoryview(data)[ref.offset : ref.offset + ref.bytes], "here") for ref in refs]
    change(data, blocks)
    digest = sha256_hex(data)
    key = keys.tar(layer.layer, 0, 0, digest[:12])
    store.put(key, bytes(data))
    store.delete(layer.key)
    edit_record(store, RECORD, layer_key=key, layer_sha256=digest, layer_bytes=len(data))
    return key


def damage_missing_record(store: Store) -> str:
    store.delete(RECORD)
    return RECORD


def damage_record_not_json(store: Store) -> str:
    store.put(RECORD, b"{")
    return RECORD


def damage_record_without_a_field(store: Store) -> str:
    store.put(RECORD, b"{}")
    return RECORD


def damage_forged_identity(store: Store) -> str:
    edit_record(store, RECORD, identity="0" * 64)
    return RECORD


def damage_record_under_another_key(store: Store) -> str:
    store.put(RECORD, store.read(keys.record(0, 1)))
    return RECORD


def damage_record_outside_the_plan(store: Store) -> str:
    store.put(keys.record(0, 3), store.read(keys.record(0, 2)))
    edit_record(store, keys.record(0, 3), part=3)
    return keys.record(0, 3)


def damage_record_of_a_shard_outside_the_plan(store: Store) -> str:
    store.put(keys.record(7, 0), store.read(RECORD))
    return keys.record(7, 0)


def damage_rows(store: Store) -> str:
    edit_record(store, RECORD, rows=191)
    return RECORD


def damage_tokens_of_the_record(store: Store) -> str:
    edit_record(store, RECORD, tokens_sha256="0" * 64)
    return RECORD


def damage_layers(store: Store) -> str:
    edit_record(store, RECORD, layers=json.loads(store.read(RECORD))["layers"][:1])
    return RECORD


def damage_layer_twice(store: Store) -> str:
    first, second = json.loads(store.read(RECORD))["layers"]
    edit_record(store, RECORD, layers=[first, first, second])
    return RECORD


def damage_record_larger_than_any(store: Store) -> str:
    edit_record(store, RECORD, numerics=json.loads(store.read(RECORD))["numerics"] | {"device": "x" * 5000})
    return RECORD


def damage_blocks(store: Store) -> str:
    edit_record(store, RECORD, layer_blocks=[0, 512])
    return RECORD


def damage_offsets(store: Store) -> str:
    edit_record(store, RECORD, layer_blocks=[0, 4096, 2048])
    return RECORD


def damage_tar_of_another_part(store: Store) -> str:
    other = layer_of(store, part=1)
    edit_record(store, RECORD, layer_key=other.key, layer_sha256=other.sha256, layer_bytes=other.bytes)
    return RECORD


def damage_missing_tar(store: Store) -> str:
    store.delete(layer_of(store).key)
    return layer_of(store).key


def damage_truncated_tar(store: Store) -> str:
    key = layer_of(store).key
    store.put(key, store.read(key)[:-512])
    return key


def damage_longer_tar(store: Store) -> str:
    key = layer_of(store).key
    store.put(key, store.read(key) + bytes(512))
    return key


def damage_missing_moments(store: Store) -> str:
    store.delete(layer_of(store).moments)
    return layer_of(store).moments


def damage_moments(store: Store) -> str:
    key = layer_of(store).moments
    store.put(key, store.read(layer_of(store, part=1).moments))
    return key


def damage_moments_of_another_part(store: Store) -> str:
    other = layer_of(store, part=1)
    edit_record(store, RECORD, layer_moments=other.moments, layer_moments_sha256=other.moments_sha256)
    return RECORD


def damage_spaces_in_the_record(store: Store) -> str:
    store.put(RECORD, json.dumps(json.loads(store.read(RECORD))).encode())
    return RECORD


LEDGER_DAMAGE: list[tuple[Callable[[Store], str], str]] = [
    (damage_missing_record, "missing record"),
    (damage_record_not_json, "unreadable record"),
    (damage_record_without_a_field, "unreadable record"),
    (damage_forged_identity, "forged record"),
    (damage_record_under_another_key, "misplaced record"),
    (damage_record_outside_the_plan, "foreign record"),
    (damage_record_of_a_shard_outside_the_plan, "foreign record"),
    (damage_rows, "wrong row count"),
    (damage_tokens_of_the_record, "wrong tokens"),
    (damage_layers, "wrong layers"),
    (damage_layer_twice, "wrong layers"),
    (damage_record_larger_than_any, "altered record"),
    (damage_blocks, "wrong blocks"),
    (damage_offsets, "wrong blocks"),
    (damage_tar_of_another_part, "foreign tar"),
    (damage_missing_tar, "missing tar"),
    (damage_truncated_tar, "truncated tar"),
    (damage_longer_tar, "changed tar"),
    (damage_missing_moments, "missing moments"),
    (damage_moments, "changed moments"),
    (damage_moments_of_another_part, "foreign moments"),
    (damage_spaces_in_the_record, "altered record"),
]


@pytest.mark.parametrize(("damage", "kind"), LEDGER_DAMAGE, ids=[damage.__name__ for damage, _ in LEDGER_DAMAGE])
@pytest.mark.parametrize("mode", ["ledger", "full"])
def test_damage_that_records_and_listing_show(
    small: Store, mode: Mode, damage: Callable[[Store], str], kind: str
) -> None:
    key = damage(small)
    assert kinds(small, mode) == [(kind, key)]
    assert not small.exists(keys.INDEX)
    assert not small.exists(keys.merged_moments(1))


def change_not_a_number(_data: bytearray, blocks: list[BlockData]) -> None:
    blocks[1].acts[3, 2] = 0x7FC0


def change_tokens(_data: bytearray, blocks: list[BlockData]) -> None:
    blocks[0].tokens[5] += 1


def change_flags(_data: bytearray, blocks: list[BlockData]) -> None:
    blocks[0].flags[5] ^= 4


def change_unused_flag_bit(_data: bytearray, blocks: list[BlockData]) -> None:
    blocks[0].flags[5] |= 128


def change_token_outside_the_vocabulary(_data: bytearray, blocks: list[BlockData]) -> None:
    blocks[2].tokens[3] = WORDS


def change_documents(data: bytearray, _blocks: list[BlockData]) -> None:
    at = data.index(b"document-0-1")
    data[at : at + 12] = b"document-0-7"


def change_activations(_data: bytearray, blocks: list[BlockData]) -> None:
    """One value among 192 x 8: all norms stay in their bins, and no row becomes an outlier."""
    blocks[1].acts[3, 2] ^= 0x0001


def change_shape(data: bytearray, _blocks: list[BlockData]) -> None:
    at = data.index(b"(80, 8)")
    data[at : at + 7] = b"(8, 80)"


def change_header(data: bytearray, _blocks: list[BlockData]) -> None:
    data[0] = ord("x")


def change_order(data: bytearray, blocks: list[BlockData]) -> None:
    """The first two blocks, which are equally long, change places."""
    length = data.index(b"b0001.acts.npy") - len(b"s0000-p000000-")
    data[:length], data[length : 2 * length] = data[length : 2 * length], data[:length]
    del blocks


def change_end(data: bytearray, _blocks: list[BlockData]) -> None:
    data[-1] = 1


FULL_DAMAGE: list[tuple[Callable[[bytearray, list[BlockData]], None], set[str]]] = [
    (change_not_a_number, {"not finite"}),
    (change_tokens, {"wrong tokens"}),
    (change_flags, {"wrong flags", "wrong flag counts"}),
    (change_unused_flag_bit, {"wrong flags"}),
    (change_token_outside_the_vocabulary, {"unknown token"}),
    (change_documents, {"wrong documents"}),
    (change_activations, {"wrong moments"}),
    (change_shape, {"malformed tar"}),
    (change_header, {"malformed tar"}),
    (change_order, {"wrong block", "wrong tokens", "wrong documents", "wrong flags", "wrong moments"}),
    (change_end, {"malformed tar"}),
]


@pytest.mark.parametrize(("change", "expected"), FULL_DAMAGE, ids=[change.__name__ for change, _ in FULL_DAMAGE])
def test_damage_that_only_the_bytes_show(
    small: Store, change: Callable[[bytearray, list[BlockData]], None], expected: set[str]
) -> None:
    key = forge_tar(small, change)
    found = kinds(small, "full")
    assert {kind for kind, _ in found} <= expected
    assert found
    assert {where for kind, where in found if kind != "wrong moments"} <= {key}
    assert {where for kind, where in found if kind == "wrong moments"} <= {layer_of(small).moments}
    assert run(small, "ledger").passed


def test_a_flipped_bit_is_seen_by_reading_alone(small: Store) -> None:
    layer = layer_of(small)
    data = bytearray(small.read(layer.key))
    data[len(data) // 2] ^= 1
    small.put(layer.key, bytes(data))
    report = run(small, "ledger")
    assert report.passed
    assert report.tars_read == 0
    assert kinds(small, "full") == [("changed tar", layer.key)]


def test_tars_swapped_between_parts_are_seen_by_reading_alone(small: Store) -> None:
    first, second = layer_of(small, 0).key, layer_of(small, 1).key
    data = small.read(first), small.read(second)
    small.put(first, data[1])
    small.put(second, data[0])
    assert run(small, "ledger").passed
    assert kinds(small, "full") == [("swapped tar", first), ("swapped tar", second)]


def test_a_swap_with_matching_digests_is_seen_by_its_content(small: Store) -> None:
    other = layer_of(small, 1)
    key = keys.tar(other.layer, 0, 0, other.sha256[:12])
    small.put(key, small.read(other.key))
    edit_record(small, RECORD, layer_key=key, layer_sha256=other.sha256)
    assert run(small, "ledger").passed
    assert {kind for kind, _ in kinds(small, "full")} >= {"wrong block", "wrong tokens"}
