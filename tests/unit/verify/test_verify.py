"""Verify finds every kind of damage and calls it by its name; what it passes, the gates and the readers can rely on."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.ledger import Plan, VerifyReport, gate_is_open, keys, read_record, read_report, record_list
from kubesae.shards import BlockData, Moments, blocks_of, parse_block, read_index
from kubesae.store import open_store
from kubesae.verify import verify
from small_experiment import write_small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kubesae.ledger import LayerRecord, Scope
    from kubesae.store import Store

    Mode = Literal["ledger", "full"]

PLAN = Plan(tokens=1003, num_shards=2, context=16, contexts_per_part=12, contexts_per_block=5)
PILOT_TOKENS = 200  # parts 0 and 1 of shard 0
RECORD = keys.record(0, 0)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a small experiment, which is copied and never changed."""
    folder = tmp_path_factory.mktemp("verify")
    write_small(open_store(str(folder)))
    return folder


@pytest.fixture
def small(pristine: Path, tmp_path: Path) -> Store:
    """Give a store with a small experiment of its own."""
    shutil.copytree(pristine, tmp_path / "data")
    return open_store(str(tmp_path / "data"))


def run(store: Store, mode: Mode, scope: Scope = "all") -> VerifyReport:
    report = verify(store, scope, mode, PILOT_TOKENS)
    assert read_report(store, scope) == report
    assert report.finding_count == len(report.findings)
    return report


def kinds(store: Store, mode: Mode, scope: Scope = "all") -> list[tuple[str, str]]:
    return [(finding.kind, finding.key) for finding in run(store, mode, scope).findings]


def layer_of(store: Store, part: int = 0) -> LayerRecord:
    return read_record(store, 0, part).layers[0]


def edit_record(store: Store, key: str, **changes: Any) -> None:
    """Change fields of a record; those of its first layer are given as `layer_FIELD`."""
    values = json.loads(store.read(key))
    for name, value in changes.items():
        if name.startswith("layer_"):
            values["layers"][0][name.removeprefix("layer_")] = value
        else:
            values[name] = value
    store.put(key, canonical_json(values))


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


@pytest.mark.parametrize("mode", ["ledger", "full"])
def test_whole_data_passes_and_is_opened_to_readers(store: Store, mode: Mode) -> None:
    identity = write_small(store)
    seen: list[tuple[int, int]] = []
    report = verify(store, "all", mode, PILOT_TOKENS, lambda done, total: seen.append((done, total)))
    assert report.passed
    assert (report.records, report.tokens, report.tars) == (6, 1003, 12)
    assert report.tars_read == (12 if mode == "full" else 0)
    assert report.bytes == sum(info.size for key, info in store.list("activations/").items() if key.endswith(".tar"))
    assert report.flagged == {"1": (64, 74, 64), "4": (64, 74, 64)}  # 64 contexts, 10 documents end
    assert report.orphans == ()
    assert seen == [(i + 1, 6) for i in range(6)]
    assert gate_is_open(store, PLAN, identity.sha256, "all", PILOT_TOKENS)
    assert store.exists(keys.INDEX)
    assert len(read_index(store, identity, 4)) == 16
    merged = Moments.from_bytes(store.read(keys.merged_moments(4)), "merged")
    parts = [
        Moments.from_bytes(store.read(read_record(store, *place).layers[1].moments), "part")
        for place in (keys.parse_record(key) for key in record_list(store))
        if place is not None
    ]
    assert merged.to_bytes() == sum(parts[1:], parts[0]).to_bytes()
    assert merged.rows == 1003
    assert run(store, mode).passed  # what it wrote itself is no orphan


def test_the_pilot_is_verified_alone(small: Store) -> None:
    for key in record_list(small):
        if key not in {keys.record(0, 0), keys.record(0, 1)}:
            small.delete(key)
    report = run(small, "full", "pilot")
    assert report.passed
    assert (report.records, report.tokens, report.tars_read, report.orphans) == (2, 384, 4, ())
    assert gate_is_open(small, PLAN, report.identity, "pilot", PILOT_TOKENS)
    assert not small.exists(keys.INDEX)
    assert [kind for kind, _ in kinds(small, "ledger")] == ["missing record"] * 4
    assert not small.exists(keys.INDEX)
    small.delete(keys.record(0, 1))
    assert kinds(small, "full", "pilot") == [("missing record", keys.record(0, 1))]
    assert not gate_is_open(small, PLAN, report.identity, "pilot", PILOT_TOKENS)


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
    (damage_blocks, "wrong blocks"),
    (damage_offsets, "wrong blocks"),
    (damage_tar_of_another_part, "foreign tar"),
    (damage_missing_tar, "missing tar"),
    (damage_truncated_tar, "truncated tar"),
    (damage_longer_tar, "changed tar"),
    (damage_missing_moments, "missing moments"),
    (damage_moments, "changed moments"),
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
    (change_shape, {"malformed tar"}),
    (change_header, {"malformed tar"}),
    (change_order, {"wrong block", "wrong tokens", "wrong flags"}),
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
    assert {where for _, where in found} == {key}
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
    assert kinds(small, "full") == [("changed tar", first), ("changed tar", second)]


def test_a_swap_with_matching_digests_is_seen_by_its_content(small: Store) -> None:
    other = layer_of(small, 1)
    key = keys.tar(other.layer, 0, 0, other.sha256[:12])
    small.put(key, small.read(other.key))
    edit_record(small, RECORD, layer_key=key, layer_sha256=other.sha256)
    assert run(small, "ledger").passed
    assert {kind for kind, _ in kinds(small, "full")} >= {"wrong block", "wrong tokens"}


def test_the_other_parts_of_damaged_data_still_count(small: Store) -> None:
    small.delete(layer_of(small).key)
    report = run(small, "full")
    assert (report.records, report.tokens, report.tars, report.tars_read) == (6, 1003 - 192, 10, 10)


def test_orphans_are_listed_and_are_no_failure(small: Store) -> None:
    orphans = [keys.tar(1, 0, 0, "0" * 12), keys.moments(1, 0, 0, "0" * 12)]
    for key in orphans:
        small.put(key, b"left by an attempt that lost")
    report = run(small, "ledger")
    assert report.passed
    assert sorted(report.orphans) == sorted(orphans)


def test_what_a_damaged_part_names_is_no_orphan(small: Store) -> None:
    """Orphans may be deleted, and what a record that must be mended names must not be."""
    edit_record(small, RECORD, identity="0" * 64)
    assert run(small, "ledger").orphans == ()
    small.put(RECORD, b"{")
    assert run(small, "ledger").orphans == ()
    small.delete(RECORD)
    assert len(run(small, "ledger").orphans) == 4


def test_many_findings_are_counted_and_the_first_are_listed(small: Store) -> None:
    for key in record_list(small):
        edit_record(small, key, identity="0" * 64, rows=1, tokens_sha256="0" * 64)
    report = verify(small, "all", "ledger", PILOT_TOKENS)
    assert report.finding_count == 18
    assert not report.passed


def test_passing_again_after_a_repair_opens_what_was_closed(small: Store) -> None:
    whole = small.read(RECORD)
    small.put(RECORD, b"{")
    report = run(small, "ledger")
    assert not gate_is_open(small, PLAN, report.identity, "all", PILOT_TOKENS)
    small.put(RECORD, whole)
    report = run(small, "ledger")
    assert gate_is_open(small, PLAN, report.identity, "all", PILOT_TOKENS)


def test_without_activations_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No activations have been collected at .* Run `kubesae collect` first"):
        verify(open_store(str(tmp_path)), "all", "ledger", PILOT_TOKENS)


def test_without_sound_tokens_nothing_can_be_checked(small: Store) -> None:
    small.put(keys.documents(1), b"x")
    with pytest.raises(DamagedError, match=r"documents-0001\.parquet is not what tokens/manifest\.json says"):
        verify(small, "all", "ledger", PILOT_TOKENS)
    values = json.loads(small.read(keys.TOKENS_MANIFEST))
    values["request"]["seed"] = 7
    small.put(keys.TOKENS_MANIFEST, canonical_json(values))
    with pytest.raises(DamagedError, match=r"is not the manifest that the data was collected from .* Restore it"):
        verify(small, "all", "ledger", PILOT_TOKENS)
    small.put(keys.IDENTITY, b"x")
    with pytest.raises(DamagedError, match=r"identity\.json is not JSON"):
        verify(small, "all", "ledger", PILOT_TOKENS)


def test_the_fixtures_outliers_are_flagged(small: Store) -> None:
    data = small.read(layer_of(small).key)
    block = parse_block(memoryview(data)[: layer_of(small).blocks[1]], "here")
    norms = np.linalg.norm(block.float32(), axis=1)
    assert np.flatnonzero(block.flags & 4).tolist() == list(range(0, 80, 16))
    assert norms[0] > 10 * np.median(norms)
