"""What verify passes, the gates and the readers can rely on; what it does not pass stays closed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import canonical_json
from kubesae.ledger import gate_is_open, keys, read_record, record_list, require_identity
from kubesae.shards import Moments, parse_block, read_index, write_index
from kubesae.store import open_store
from kubesae.verify import verify
from kubesae.verify.context import Context, Tokens
from small_experiment import edit_record, write_small
from verified import PILOT_TOKENS, PLAN, RECORD, kinds, layer_of, run

if TYPE_CHECKING:
    from kubesae.store import ObjectInfo, Store
    from verified import Mode


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
    assert gate_is_open(store, PLAN, identity.sha256, "all", PILOT_TOKENS, mode)
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
    assert gate_is_open(small, PLAN, report.identity, "pilot", PILOT_TOKENS, "full")
    assert not small.exists(keys.INDEX)
    assert [kind for kind, _ in kinds(small, "ledger")] == ["missing record"] * 4
    assert not small.exists(keys.INDEX)
    small.delete(keys.record(0, 1))
    assert kinds(small, "full", "pilot") == [("missing record", keys.record(0, 1))]
    assert not gate_is_open(small, PLAN, report.identity, "pilot", PILOT_TOKENS, "full")


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
    assert not gate_is_open(small, PLAN, report.identity, "all", PILOT_TOKENS, "ledger")
    small.put(RECORD, whole)
    report = run(small, "ledger")
    assert gate_is_open(small, PLAN, report.identity, "all", PILOT_TOKENS, "ledger")


def test_without_activations_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No activations have been collected at .* Run `kubesae collect` first"):
        verify(open_store(str(tmp_path)), "all", "ledger", PILOT_TOKENS)


@pytest.mark.parametrize("key", [keys.tokens(1), keys.documents(1), keys.TOKENS_MANIFEST, keys.TOKENIZER])
@pytest.mark.parametrize("mode", ["ledger", "full"])
def test_token_files_that_are_damaged_or_gone_are_findings(small: Store, mode: Mode, key: str) -> None:
    whole = small.read(key)
    for data in (b"x", whole[:-1], whole + b"\0"):
        small.put(key, data)
        assert kinds(small, mode) == [("damaged tokens", key)]
    small.delete(key)
    assert kinds(small, mode) == [("missing tokens", key)]
    small.put(key, whole)
    assert run(small, mode).passed


def test_a_changed_space_around_the_token_ids_is_damage_too(small: Store) -> None:
    data = bytearray(small.read(keys.tokens(0)))
    data[120] ^= 0x15
    small.put(keys.tokens(0), bytes(data))
    assert kinds(small, "ledger") == [("damaged tokens", keys.tokens(0))]


def test_parts_are_checked_although_the_tokens_are_damaged(small: Store) -> None:
    small.put(keys.tokens(0), b"x")
    small.delete(layer_of(small).key)
    assert kinds(small, "full") == [("missing tar", layer_of(small).key), ("damaged tokens", keys.tokens(0))]


def test_the_manifest_of_other_tokens_is_damage(small: Store) -> None:
    values = json.loads(small.read(keys.TOKENS_MANIFEST))
    values["request"]["seed"] = 7
    small.put(keys.TOKENS_MANIFEST, canonical_json(values))
    assert kinds(small, "full") == [("damaged tokens", keys.TOKENS_MANIFEST)]


def test_without_an_identity_nothing_can_be_checked(small: Store) -> None:
    small.put(keys.IDENTITY, b"x")
    with pytest.raises(DamagedError, match=r"identity\.json is not JSON"):
        verify(small, "all", "ledger", PILOT_TOKENS)


def test_what_verify_wrote_is_checked_before_it_is_written_again(small: Store) -> None:
    report = run(small, "ledger")
    assert report.passed
    urls, index, merged = keys.layer_urls(4), keys.INDEX, keys.merged_moments(4)
    whole = {key: small.read(key) for key in (urls, index, merged)}
    lines = whole[urls].splitlines(keepends=True)
    shorter = Moments.from_bytes(small.read(layer_of(small).moments), "part").to_bytes()
    for key, data, kind in (
        (urls, b"".join(lines[1:]), "damaged index"),
        (urls, b"".join([lines[1], lines[0], *lines[2:]]), "damaged index"),
        (index, whole[index][:-9], "damaged index"),
        (merged, b"x", "wrong moments"),
        (merged, shorter, "wrong moments"),
    ):
        small.put(key, data)
        assert kinds(small, "ledger") == [(kind, key)]
        assert small.read(key) == data
        small.put(key, whole[key])
    assert run(small, "ledger") == report


def test_a_copied_prefix_is_not_damaged(small: Store, tmp_path: Path) -> None:
    """The lists of URLs name the old place: they are written anew, and no damage."""
    run(small, "ledger")
    shutil.copytree(small.url, tmp_path / "copy")
    copy = open_store(str(tmp_path / "copy"))
    assert run(copy, "full").passed
    assert copy.read(keys.layer_urls(1)).decode().splitlines()[0] == copy.url_of(layer_of(copy).key)


def test_an_index_over_a_damaged_part_is_still_compared_for_the_others(small: Store) -> None:
    run(small, "ledger")
    small.delete(layer_of(small).key)
    assert kinds(small, "ledger") == [("missing tar", layer_of(small).key)]
    refs = [ref for layer in (1, 4) for ref in read_index(small, require_identity(small), layer)]
    write_index(small, require_identity(small), refs[:-1])
    assert kinds(small, "ledger") == [("damaged index", keys.INDEX), ("missing tar", layer_of(small).key)]


def test_open_uploads_are_listed_and_are_no_failure(small: Store) -> None:
    name = f"activations/layer-001/shard-0000/.{'a' * 24}.tmp"
    (Path(small.url) / name).write_bytes(b"half")
    report = run(small, "ledger")
    assert report.passed
    assert report.open_uploads == (name,)


def test_any_number_of_threads_gives_the_same_report(small: Store) -> None:
    small.put(layer_of(small).key, b"x")
    reports = [verify(small, "all", "full", PILOT_TOKENS, workers=workers).to_json() for workers in (1, 3, 8)]
    assert reports[0] == reports[1] == reports[2]


def test_the_fixtures_outliers_are_flagged(small: Store) -> None:
    data = small.read(layer_of(small).key)
    block = parse_block(memoryview(data)[: layer_of(small).blocks[1]], "here")
    norms = np.linalg.norm(block.float32(), axis=1)
    assert np.flatnonzero(block.flags & 4).tolist() == list(range(0, 80, 16))
    assert norms[0] > 10 * np.median(norms)


def test_a_part_that_is_committed_while_objects_are_listed_is_not_damaged(
    small: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is read, but its tars came after the listing had passed their keys."""
    late = {layer.key for layer in read_record(small, 1, 2).layers}
    real = type(small).list

    def listed_before(self: Store, prefix: str = "", *, after: str | None = None) -> dict[str, ObjectInfo]:
        found = real(self, prefix, after=after)
        return {key: info for key, info in found.items() if prefix != "activations/" or key not in late}

    monkeypatch.setattr(type(small), "list", listed_before)
    for mode in ("ledger", "full"):
        assert run(small, mode).findings == ()


def test_parts_of_two_shards_at_a_time_read_their_tokens_once(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the edge of two shards threads ask for both in turn, whatever was asked for before."""
    context = Context.of(small)
    monkeypatch.setattr(context, "_read_tokens", lambda shard: reads.append(shard) or Tokens(None, None, ()))
    reads: list[int] = []
    for shard in (2, 3, 0, 1, 0, 1, 0, 1):
        context.tokens(shard)
    assert reads == [2, 3, 0, 1]
