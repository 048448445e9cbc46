"""A row is traced to its token, text and document by two small reads, stored or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kubesae.corpus import Tokenizer, Vocabulary, read_shard_tokens, require_manifest
from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import Experiment
from kubesae.ledger import Plan, keys, read_record, require_identity
from kubesae.prepare import prepare
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from kubesae.trace import trace, trace_lines
from small_experiment import edit_record, small_experiment, write_small
from tiny_models import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

WIDTH = 3
FIXED = {keys.IDENTITY, keys.TOKENS_MANIFEST, keys.TOKENIZER}


@pytest.fixture
def small(store: Store) -> tuple[Store, Experiment]:
    """Give a store with the small experiment, and the experiment, which shows three tokens on each side."""
    write_small(store)
    return store, small_experiment(store.url, interpret={"context_tokens": WIDTH})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Experiment]:
    """Give the same, for tests that leave it as it is."""
    store = open_store(str(tmp_path_factory.mktemp("small")))
    write_small(store)
    return store, small_experiment(store.url, interpret={"context_tokens": WIDTH})


@pytest.mark.parametrize("layer", [1, 4])
def test_every_row_is_what_prepare_and_collect_stored(shared: tuple[Store, Experiment], layer: int) -> None:
    store, experiment = shared
    plan, manifest = Plan.of(experiment), require_manifest(store)
    vocabulary, context = Vocabulary.read(store, manifest), plan.context
    tokens = [read_shard_tokens(store, manifest, shard) for shard in range(2)]
    blocks = {ref: read_block(store, ref) for ref in read_index(store, require_identity(store), layer)}
    for row in [*range(0, plan.tokens, 7), plan.quota(0) - 1, plan.quota(0), plan.tokens - 1]:
        found = trace(store, experiment, row, layer=layer, norm=True)
        shard, at = plan.locate(row)
        assert (found.row, found.place.shard, found.place.shard_row) == (row, shard, at)
        ids, (run,) = tokens[shard].ids, tokens[shard].documents(at, 1)
        assert (found.text.token, found.corpus, found.document, found.offset) == (
            ids[at], run.corpus, run.document, run.offset
        )  # fmt: skip
        begin, end = at - at % context, min(at - at % context + context, len(ids))
        window = ids[max(begin, at - WIDTH) : min(end, at + WIDTH + 1)]
        assert found.text.before + found.text.marked + found.text.after == vocabulary.text(window)
        ref = next(ref for ref in blocks if ref.row <= row < ref.row + ref.rows)
        assert found.stored is not None
        assert (found.stored.tar, found.stored.block, found.place.block_row) == (ref.tar, ref.key, row - ref.row)
        assert found.flags == blocks[ref].flags[row - ref.row]
        assert found.stored.norm == pytest.approx(np.linalg.norm(blocks[ref].float32()[row - ref.row]))


def test_a_stored_row_takes_two_reads_of_a_few_kilobytes(
    small: tuple[Store, Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, experiment = small
    read = _watch(store, monkeypatch)
    trace(store, experiment, 777)
    ref = next(ref for ref in read_index(store, require_identity(store), 1) if ref.row <= 777 < ref.row + ref.rows)
    asked = [entry for entry in read[:5] if entry[0] not in FIXED]
    assert sorted(entry[0] for entry in read[:5] if entry[0] in FIXED) == sorted(FIXED)
    assert [key for key, _ in asked] == [keys.record(ref.shard, ref.part), ref.tar]
    assert asked[1][1] < ref.bytes
    read.clear()
    trace(store, experiment, 777, norm=True)
    assert [size for key, size in read if key == ref.tar] == [asked[1][1], 8 * 2]


def test_a_row_that_is_not_collected_is_shown_from_the_prepared_tokens(small: tuple[Store, Experiment]) -> None:
    store, experiment = small
    rows = [0, 1, 15, 250, 501, 502, 1002]
    before = [trace(store, experiment, row) for row in rows]
    for part in Plan.of(experiment).all_parts():
        store.delete(keys.record(part.shard, part.index))
    _same_but_not_stored(before, [trace(store, experiment, row) for row in rows])
    store.delete(keys.IDENTITY)
    after = [trace(store, experiment, row) for row in rows]
    _same_but_not_stored(before, after)
    assert "  Stored    not yet: `kubesae collect` goes on from what is committed" in trace_lines(after[0])


def _same_but_not_stored(before: list[Any], after: list[Any]) -> None:
    for there, here in zip(before, after, strict=True):
        assert here.stored is None
        assert here.flags == there.flags & 3
        assert here == there.model_copy(update={"stored": None, "flags": here.flags})


@pytest.mark.parametrize("row", [-1, 1003])
def test_a_row_outside_the_data_is_refused(shared: tuple[Store, Experiment], row: int) -> None:
    store, experiment = shared
    with pytest.raises(ConfigError, match=rf"There is no row {row:,} at .*: the data has rows 0 to 1,002\."):
        trace(store, experiment, row)


def test_a_layer_that_was_not_collected_is_refused(shared: tuple[Store, Experiment]) -> None:
    store, experiment = shared
    with pytest.raises(ConfigError, match=r"Layer 2 was not collected at .*: it has layers \[1, 4\]"):
        trace(store, experiment, 0, layer=2)


def test_where_nothing_is_prepared_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Run `kubesae prepare` first"):
        trace(open_store(str(tmp_path)), small_experiment(str(tmp_path)), 0)


def test_what_another_experiment_or_part_left_there_is_not_shown(small: tuple[Store, Experiment]) -> None:
    store, experiment = small
    edit_record(store, keys.record(0, 0), identity="0" * 64)
    with pytest.raises(DamagedError, match="with identity 000000000000"):
        trace(store, experiment, 0)
    store.put(keys.record(0, 0), store.read(keys.record(0, 1)))
    with pytest.raises(DamagedError, match="is the record of shard 0, part 1"):
        trace(store, experiment, 0)
    edit_record(store, keys.record(0, 2), layers=[])
    with pytest.raises(DamagedError, match="The record of shard 0, part 2 lacks layer 1"):
        trace(store, experiment, 400)
    tar = read_record(store, 1, 0).layers[0].key
    store.put(tar, b"\0" * len(store.read(tar)))
    with pytest.raises(DamagedError, match="is not a kubesae tar"):
        trace(store, experiment, 502)


def test_a_token_that_is_a_piece_of_a_character_shows_the_character(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "signs.txt").write_text("a ✓ b 漢字 🙂 c " * 40)
    save_tokenizer(tmp_path / "model", every_byte=True)
    experiment = Experiment.model_validate(
        {
            "data": str(tmp_path / "data"),
            "model": str(tmp_path / "model"),
            "layers": [0],
            "corpora": [{"name": "signs", "source": str(tmp_path / "text")}],
            "tokens": 64,
            "num_shards": 1,
            "context": 64,
            "interpret": {"context_tokens": 8},
        }
    )
    store = open_store(experiment.data)
    prepare(experiment, store)
    encoded = Tokenizer.load(experiment.model, None).encode(["✓漢🙂"])[0].ids
    assert len(encoded) > 3  # so that some tokens are pieces
    shown = "".join(trace(store, experiment, row).text.marked for row in range(1, 40))
    assert "\N{REPLACEMENT CHARACTER}" not in shown
    assert "✓✓" in shown
    lines = list(trace_lines(trace(store, experiment, 3)))
    assert lines[3] == "  Document  signs.txt (signs), token 2"


def _watch(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list that will have the key and bytes of every read."""
    read: list[tuple[str, int]] = []
    whole, into = type(store).read, type(store).read_into

    def note(self: Store, key: str, *span: int) -> bytes:
        data = whole(self, key, *span)
        read.append((key, len(data)))
        return data

    def note_into(self: Store, key: str, start: int, buffer: memoryview) -> None:
        into(self, key, start, buffer)
        read.append((key, len(buffer)))

    monkeypatch.setattr(type(store), "read", note)
    monkeypatch.setattr(type(store), "read_into", note_into)
    return read
