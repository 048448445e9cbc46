"""Prepare goes on where it was: nothing that is there is made again, nothing of other settings is taken for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kubesae.corpus import Tokenizer
from kubesae.errors import DamagedError
from kubesae.ledger import keys
from kubesae.prepare import prepare
from kubesae.store import open_store
from preparing import UNITS, contents, experiment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kubesae.store import Store


class Counted:
    """Counts the documents that are tokenised, and may die at the batch `dies_at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dies_at: int | None = None) -> None:
        self.batches = 0
        self.dies_at = dies_at
        encode: Callable[..., Any] = Tokenizer.encode

        def counted(tokenizer: Tokenizer, texts: Sequence[str]) -> Any:
            self.batches += 1
            if self.batches == self.dies_at:
                raise KeyboardInterrupt
            return encode(tokenizer, texts)

        monkeypatch.setattr(Tokenizer, "encode", counted)


def test_a_rerun_does_nothing(folder_store: Store, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = experiment(inputs, folder_store.url)
    first = prepare(wanted, folder_store).manifest
    before = contents(folder_store)
    monkeypatch.setattr(Tokenizer, "load", None)  # not even the tokenizer is loaded
    again = prepare(wanted, folder_store)
    assert again.existed
    assert again.manifest == first
    assert contents(folder_store) == before


def test_a_killed_run_goes_on_from_its_segments(
    folder_store: Store, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_store(str(tmp_path / "whole"))
    count = Counted(monkeypatch)
    expected = prepare(experiment(inputs, whole.url, tokens=2000), whole).manifest
    assert count.batches == UNITS

    wanted = experiment(inputs, folder_store.url, tokens=2000)
    for done in range(1, UNITS):
        count.batches, count.dies_at = 0, 2
        with pytest.raises(KeyboardInterrupt):
            prepare(wanted, folder_store)
        assert not folder_store.exists(keys.TOKENS_MANIFEST)
        assert len([key for key in folder_store.list("tokens/segments/") if key.endswith(".json")]) == done
    count.batches, count.dies_at = 0, None
    assert prepare(wanted, folder_store).manifest == expected
    assert count.batches == 1


def test_segments_are_used_again_when_only_the_deal_was_lost(
    folder_store: Store, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = experiment(inputs, folder_store.url)
    prepare(wanted, folder_store)
    before = {key: data for key, (data, _) in contents(folder_store).items()}
    folder_store.delete(keys.TOKENS_MANIFEST)
    folder_store.delete(keys.tokens(1))
    count = Counted(monkeypatch)
    prepare(wanted, folder_store)
    assert count.batches == 0
    assert {key: data for key, (data, _) in contents(folder_store).items()} == before


def test_shards_that_were_dealt_are_neither_read_nor_made_again(
    folder_store: Store, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after shard 1 of 4: of the two that are there not a byte is read, and the others become what they were."""
    whole = open_store(str(tmp_path / "whole"))
    expected = prepare(experiment(inputs, whole.url, num_shards=4), whole).manifest
    wanted = experiment(inputs, folder_store.url, num_shards=4)

    def killed(line: str) -> None:
        if line.startswith("Shard 1:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(wanted, folder_store, say=killed)
    assert not folder_store.exists(keys.TOKENS_MANIFEST)
    before = contents(folder_store)
    read: list[str] = []
    original = type(folder_store).read

    def noted(store: Store, key: str, *span: int) -> bytes:
        read.append(key)
        return original(store, key, *span)

    monkeypatch.setattr(type(folder_store), "read", noted)
    lines: list[str] = []
    assert prepare(wanted, folder_store, say=lines.append).manifest == expected
    assert lines[-3:] == ["2 of 4 shards were dealt before", "Shard 2: 251 tokens dealt", "Shard 3: 250 tokens dealt"]
    monkeypatch.undo()
    after = contents(folder_store)
    for shard in (0, 1):
        assert not {keys.tokens(shard), keys.documents(shard)} & set(read)
        for key in (keys.tokens(shard), keys.documents(shard), keys.dealt(shard)):
            assert after[key] == before[key]
    assert {key: data for key, (data, _) in after.items()} == {key: data for key, (data, _) in contents(whole).items()}


def test_shards_that_were_dealt_of_something_else_are_made_anew(
    folder_store: Store, inputs: Path, tmp_path: Path
) -> None:
    prepare(experiment(inputs, folder_store.url, seed=1), folder_store)
    folder_store.delete(keys.TOKENS_MANIFEST)
    fresh = open_store(str(tmp_path / "fresh"))
    expected = prepare(experiment(inputs, fresh.url), fresh).manifest
    assert prepare(experiment(inputs, folder_store.url), folder_store).manifest == expected
    assert folder_store.read(keys.tokens(0)) == fresh.read(keys.tokens(0))


def test_segments_of_other_settings_are_made_anew(folder_store: Store, inputs: Path, tmp_path: Path) -> None:
    prepare(experiment(inputs, folder_store.url, context=20), folder_store)
    folder_store.delete(keys.TOKENS_MANIFEST)
    fresh = open_store(str(tmp_path / "fresh"))
    expected = prepare(experiment(inputs, fresh.url), fresh).manifest
    assert prepare(experiment(inputs, folder_store.url), folder_store).manifest == expected


def test_a_damaged_segment_says_what_to_delete(folder_store: Store, inputs: Path) -> None:
    wanted = experiment(inputs, folder_store.url)
    expected = prepare(wanted, folder_store).manifest
    stem = keys.segment("rows", 0)
    for key, damage in ((f"{stem}.npy", b"\x93NUMPY"), (f"{stem}.parquet", b"PAR1"), (f"{stem}.npy", None)):
        folder_store.delete(keys.TOKENS_MANIFEST)
        folder_store.delete(keys.tokens(0))
        folder_store.delete(key)
        if damage is not None:
            folder_store.put(key, damage)
        with pytest.raises(DamagedError, match=r"segment-000000 is damaged .* Delete its \.json and prepare again"):
            prepare(wanted, folder_store)
        folder_store.delete(f"{stem}.json")
        assert prepare(wanted, folder_store).manifest == expected
