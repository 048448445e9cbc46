"""A look at a store: all of it by a few listings, nothing written, no torch."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kubesae.experiment import canonical_json
from kubesae.ledger import Plan, keys, read_report
from kubesae.monitor import Row, observe, observe_collection, snapshot_rows
from kubesae.store import open_store
from kubesae.verify import verify
from small_experiment import small_experiment, write_small

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from kubesae.monitor import Snapshot
    from kubesae.store import Store

BEST = {"checkpoint": "checkpoints/step-00000020", "step": 20, "epoch": 2, "val_loss": 0.5, "fvu": 0.25, "l0": 31.25}


def look(store: Store) -> Snapshot:
    return observe(store, store, small_experiment(store.url))


def test_where_nothing_is_there_is_only_the_plan(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "empty"))
    assert [row.text for row in snapshot_rows(look(store))] == [
        "Prepare: not done yet",
        "Shard 0: 0 / 502 tokens (0.0%) - Chunk 0",
        "Shard 1: 0 / 501 tokens (0.0%) - Chunk 0",
        "Total: 0 / 1,003 tokens (0.0%)",
    ]
    assert not (tmp_path / "empty").exists()


def test_a_run_that_goes_on_is_seen_as_far_as_it_is(store: Store) -> None:
    write_small(store)
    for part in (1, 2):
        store.delete(keys.record(1, part))
    before = store.list()
    found = look(store)
    assert store.list() == before
    first, second = found.collection.shards
    assert (first.state, first.tokens, first.parts, first.chunk) == ("complete", 502, 3, 3)
    assert (second.state, second.tokens, second.parts, second.total_parts, second.chunk) == ("running", 192, 1, 3, 0)
    content = {key: info.size for key, info in before.items() if key.endswith((".tar", ".npz"))}
    assert first.bytes == sum(size for key, size in content.items() if "/shard-0000/" in key)
    assert found.collection.bytes == sum(content.values())
    assert second.last_commit == before[keys.record(1, 0)].modified
    assert second.age is not None
    assert 0 <= second.age < 60
    rows = list(snapshot_rows(found))
    assert rows[0] == Row("Prepare: 1,003 tokens in 2 shards, from planted")
    assert rows[1].text == "Shard 0: 502 / 502 tokens (100.0%) - Chunk 3"
    assert rows[1].details.endswith("kB, complete")
    assert rows[2].text == "Shard 1: 192 / 501 tokens (38.3%) - Chunk 0"
    assert "last commit" in rows[2].details


def test_a_collection_alone_is_one_listing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(store)
    calls: list[str] = []
    listing = type(store).list

    def note(self: Store, prefix: str = "", *, after: str | None = None) -> object:
        calls.append(prefix)
        return listing(self, prefix, after=after)

    monkeypatch.setattr(type(store), "list", note)
    found = observe_collection(store, small_experiment(store.url), [1])
    assert [(state.shard, state.state) for state in found.shards] == [(1, "complete")]
    assert calls == ["activations/"]
    calls.clear()
    look(store)
    assert len(calls) == 3


def test_records_that_the_plan_does_not_have_count_for_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    before = look(store).collection
    for shard, part in ((0, 3), (7, 0)):
        store.put(keys.record(shard, part), b"{}")
    assert [state.parts for state in look(store).collection.shards] == [state.parts for state in before.shards]


def test_reports_hold_as_long_as_the_records_are_those_they_speak_of(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    assert look(store).reports == ()
    verify(store, "pilot", "full", 200)
    verify(store, "all", "ledger", 200)
    assert [(r.scope, r.mode, r.result, r.tokens) for r in look(store).reports] == [
        ("pilot", "full", "passed", 384),
        ("all", "ledger", "passed", 1003),
    ]
    lost = keys.record(1, 2)
    record = store.read(lost)
    store.delete(lost)
    assert [r.result for r in look(store).reports] == ["passed", "outdated"]
    assert snapshot_line(store, "Verify") == (
        "Verify: ! passed, but not for all that is to be there (1,003 tokens, mode ledger)"
    )
    verify(store, "all", "ledger", 200)
    report = read_report(store, "all")
    assert report is not None
    assert snapshot_line(store, "Verify") == f"Verify: ✗ 1 thing wrong ({report.tokens} tokens, mode ledger)"
    store.put(lost, record)
    assert snapshot_line(store, "Pilot") == "Pilot: ✓ passed (384 tokens, mode full)"


def test_saes_show_their_checkpoints(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    for step in (10, 20, 30):
        store.put(keys.checkpoint_folder("one", step) + keys.CHECKPOINT_STATE, b"{}")
    store.put(keys.checkpoint_folder("one", 40) + "sae.safetensors", b"not complete")
    store.put(keys.best("one"), canonical_json(BEST))
    store.put(keys.evaluation("one"), b"{}")
    store.put(keys.page("one"), b"<html>")
    store.put(keys.sae_config("two"), b"{}")
    store.put(keys.SWEEP, b"{}")
    store.put(keys.SWEEP_PAGE, b"<html>")
    assert snapshot_line(store, "SAE one") == (
        "SAE one: best at step 20 (epoch 2, FVU 0.2500, L0 31.2), last checkpoint at step 30, evaluated, interpreted"
    )
    assert snapshot_line(store, "SAE two") == "SAE two: no checkpoint yet"


def snapshot_line(store: Store, beginning: str) -> str:
    (line,) = [row.text for row in snapshot_rows(look(store)) if row.text.startswith(beginning)]
    return line


def test_stragglers_stand_out(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    store.delete(keys.record(1, 2))
    later = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, UTC)
    found = observe(store, store, small_experiment(store.url), later)
    (row,) = [row for row in snapshot_rows(found) if row.state == "silent"]
    assert "last commit 60 min ago, SILENT: is its worker running, usually every 0 s?" in row.details


def test_it_needs_neither_torch_nor_what_it_comes_with(tmp_path: Path) -> None:
    write_small(open_store(str(tmp_path)))
    program = """
import sys
from kubesae.cli.main import _run
assert _run(["monitor", "--data", sys.argv[1]]) == 0
assert not {"torch", "transformers", "datasets", "pyarrow"} & set(sys.modules), "too much is loaded"
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)


def test_the_plan_is_that_of_the_data_not_of_the_file(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    identity = write_small(store)
    other = small_experiment(store.url, tokens=5000)
    assert observe(store, store, other).collection.total == Plan.of(identity).tokens
