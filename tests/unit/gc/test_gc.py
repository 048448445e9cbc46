"""gc removes what nobody needs and nothing else: not what is young, is named, or may still be named."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from kubesae.cli.main import group
from kubesae.errors import ConfigError, DamagedError
from kubesae.gc import collect_garbage, find_garbage
from kubesae.ledger import keys, read_record
from kubesae.store import Store, open_store
from kubesae.verify import verify
from open_uploads import begin_upload
from small_experiment import edit_record, write_small

if TYPE_CHECKING:
    from kubesae.store.store import ObjectInfo

HOUR = timedelta(hours=1)
ORPHANS = [keys.tar(1, 0, 0, "0" * 12), keys.moments(4, 1, 2, "f" * 12)]
UPLOAD = f"activations/layer-001/shard-0000/.{'a' * 24}.tmp"
SHARE = keys.verify_share("all", 0, 3)


@pytest.fixture
def small(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "data"))
    write_small(store)
    assert verify(store, "all", "full", 200).passed
    return store


def litter(store: Store) -> None:
    """Leave what killed programs leave."""
    for key in (*ORPHANS, UPLOAD, SHARE):
        path = Path(store.url) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)


def age(store: Store, *left_out: str) -> None:
    """Make everything two hours old."""
    for path in Path(store.url).rglob("*"):
        if path.relative_to(store.url).as_posix() not in left_out:
            os.utime(path, (path.stat().st_mtime - 7200,) * 2)


def run(store: Store) -> None:
    collect_garbage(store, find_garbage(store, HOUR))


def test_litter_goes_and_all_else_stays(small: Store) -> None:
    before = {key: small.read(key) for key in small.list()}
    litter(small)
    age(small)
    garbage = find_garbage(small, HOUR)
    assert sorted(garbage.objects) == sorted([*ORPHANS, SHARE])
    assert [upload.key for upload in garbage.uploads] == [UPLOAD]
    assert (garbage.bytes, garbage.waiting) == (400, [])
    collect_garbage(small, garbage)
    assert {key: small.read(key) for key in small.list()} == before
    assert small.open_uploads() == []
    assert find_garbage(small, HOUR).bytes == 0
    assert verify(small, "all", "full", 200).passed


def test_the_young_stays(small: Store) -> None:
    litter(small)
    garbage = find_garbage(small, HOUR)
    assert (garbage.objects, garbage.uploads) == ({}, [])
    run(small)
    assert all((Path(small.url) / key).exists() for key in (*ORPHANS, UPLOAD, SHARE))


def test_the_tars_of_a_part_without_a_record_stay(small: Store) -> None:
    """Whoever collects it next writes the same names; one that does so now must not lose them."""
    layers = read_record(small, 0, 1).layers
    small.delete(keys.record(0, 1))
    age(small)
    garbage = find_garbage(small, HOUR)
    assert garbage.objects == {}
    assert garbage.waiting == sorted(key for layer in layers for key in (layer.key, layer.moments))


def test_nothing_goes_while_a_record_cannot_be_read(small: Store) -> None:
    litter(small)
    small.put(keys.record(1, 1), b"{")
    age(small)
    with pytest.raises(DamagedError, match=r"(?s)Nothing was removed.*part-000001\.json.*`kubesae repair` mends it"):
        find_garbage(small, HOUR)
    assert small.exists(ORPHANS[0])


@pytest.mark.parametrize("change", [{"identity": "0" * 64}, {"part": 1}, {"layer_key": ORPHANS[1]}])
def test_what_a_wrong_record_does_not_name_stays(small: Store, change: dict[str, Any]) -> None:
    """Its names are how repair knows which bytes there were."""
    edit_record(small, keys.record(0, 0), **change, layer_moments=ORPHANS[1])
    age(small)
    garbage = find_garbage(small, HOUR)
    assert garbage.objects == {}
    assert len(garbage.waiting) in {1, 2}


def test_what_is_written_again_meanwhile_stays(small: Store) -> None:
    litter(small)
    age(small)
    garbage = find_garbage(small, HOUR)
    small.put(ORPHANS[0], b"again")
    collect_garbage(small, garbage)
    assert small.read(ORPHANS[0]) == b"again"
    assert not small.exists(ORPHANS[1])


def test_what_is_committed_meanwhile_stays(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that appears between the two listings names tars that the first has seen."""
    record = small.read(keys.record(0, 1))
    small.delete(keys.record(0, 1))
    age(small)
    real = type(small).list

    def commit_first(self: Store, prefix: str = "", *, after: str | None = None) -> dict[str, ObjectInfo]:
        if prefix == keys.LEDGER:
            self.create(keys.record(0, 1), record)
        return real(self, prefix, after=after)

    monkeypatch.setattr(type(small), "list", commit_first)
    garbage = find_garbage(small, HOUR)
    assert (garbage.objects, garbage.waiting) == ({}, [])


def test_an_open_upload_is_listed_by_verify_and_ended_by_gc(store: Store, request: pytest.FixtureRequest) -> None:
    write_small(store)
    begin_upload(request, store, keys.tar(1, 0, 0, "0" * 12), b"x" * 1000)
    report = verify(store, "all", "ledger", 200)
    assert report.passed
    assert len(report.open_uploads) == 1
    garbage = find_garbage(store, -HOUR)  # all is old
    assert (garbage.objects, garbage.bytes) == ({}, 1000)
    collect_garbage(store, garbage)
    assert store.open_uploads() == []
    assert verify(store, "all", "full", 200).open_uploads == ()


def test_other_files_are_none_of_its_business(small: Store) -> None:
    for key in ("activations/notes.tar", "sae/one/config.json", keys.quarantine(0, 0, "0" * 12), "verify/mine.json"):
        small.put(key, b"x")
    age(small)
    assert find_garbage(small, HOUR).objects == {}


def test_without_activations_there_is_nothing_to_remove(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No activations have been collected"):
        find_garbage(open_store(str(tmp_path)), HOUR)


def test_the_command_says_what_and_how_much(small: Store) -> None:
    litter(small)
    age(small)

    def command(*arguments: str) -> str:
        result = CliRunner().invoke(group, ["gc", "--data", small.url, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert "Would remove 0 objects and 0 open uploads, 0 bytes; nothing was done" in command("--dry-run")
    shown = command("--dry-run", "--grace", "1h")
    assert re.search(rf"  {ORPHANS[0]}: 100 bytes, written \d{{4}}-", shown)
    assert re.search(rf"  {re.escape(UPLOAD)}: open upload, 100 bytes, begun \d{{4}}-", shown)
    assert "Would remove 3 objects and 1 open upload, 400 bytes; nothing was done" in shown
    assert small.exists(ORPHANS[0])
    assert "✓ Removed 3 objects and 1 open upload, 400 bytes\n" in command("--grace", "0.04d")
    assert not small.exists(ORPHANS[0])


@pytest.mark.parametrize("text", ["24", "h", "-1h", "1w", "1 h"])
def test_a_grace_time_needs_a_unit(text: str) -> None:
    result = CliRunner().invoke(group, ["gc", "--grace", text])
    assert result.exit_code == 2
    assert "is no time. Write a number and s, m, h or d, as in 24h" in result.output
