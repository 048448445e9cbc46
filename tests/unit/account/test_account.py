"""Every token of the plan is in the account once, and what it says of them is what lies in the store."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kubesae.account import Account, account
from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import Experiment
from kubesae.ledger import Plan, keys, require_identity
from kubesae.prepare import prepare
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from small_experiment import edit_record, small_experiment, write_small
from tiny_models import save_tokenizer, text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kubesae.account import Count
    from kubesae.store import Store


def take(store: Store, **options: Any) -> Account:
    found = account(store, small_experiment(store.url), **options)
    assert_adds_up(found, 1003)
    return found


def assert_adds_up(found: Account, tokens: int) -> None:
    assert found.total.planned == tokens
    groups: list[Iterable[Count]] = [found.shards, found.corpora, *([found.documents] if found.documents else [])]
    for counts in groups:
        for field in ("planned", "stored", "missing"):
            assert sum(getattr(count, field) for count in counts) == getattr(found.total, field)
        assert all(count.planned == count.stored + count.missing for count in counts)
        if found.total.flagged is not None:
            assert sum(count.flagged or 0 for count in counts) == found.total.flagged


def test_a_complete_collection(store: Store) -> None:
    write_small(store)
    found = take(store)
    assert (found.total.stored, found.total.missing, found.total.flagged) == (1003, 0, None)
    (corpus,) = found.corpora
    assert (corpus.corpus, corpus.documents, corpus.stored) == ("planted", 12, 1003)
    assert [(count.shard, count.planned) for count in found.shards] == [(0, 502), (1, 501)]
    assert found.documents is None


def test_what_is_not_committed_is_missing_where_it_is(store: Store) -> None:
    write_small(store)
    store.delete(keys.record(1, 1))
    found = take(store, documents=True)
    assert [(count.stored, count.missing) for count in found.shards] == [(502, 0), (309, 192)]
    assert found.documents is not None
    missing = {count.document: count.missing for count in found.documents if count.missing}
    assert missing == {"document-1-1": 8, "document-1-2": 100, "document-1-3": 84}  # rows 192 to 383, by hundreds


def test_where_nothing_is_collected_everything_is_missing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigError, match="Run `kubesae prepare` first"):
        take(store)
    write_small(store)
    for key in store.list("activations/"):
        store.delete(key)
    found = take(store, documents=True, flags_layer=1)
    assert (found.total.stored, found.total.missing, found.flags) == (0, 1003, ())


@pytest.mark.parametrize("layer", [1, 4])
def test_flags_are_counted_where_they_are(tmp_path: Path, layer: int) -> None:
    store = open_store(str(tmp_path))
    identity = write_small(store)
    found = take(store, flags_layer=layer, documents=True)
    tokens = [read_shard_tokens(store, require_manifest(store), shard) for shard in range(2)]
    plan, expected, bits = Plan.of(identity), Counter[str](), np.zeros(3, int)
    for ref in read_index(store, identity, layer):
        flags = read_block(store, ref).flags
        start = plan.locate(ref.row)[1]
        bits += [int((flags & bit != 0).sum()) for bit in (1, 2, 4)]
        for run in tokens[ref.shard].documents(start, ref.rows):
            expected[run.document] += int((flags[run.start : run.start + run.tokens] != 0).sum())
    assert found.documents is not None
    assert {count.document: count.flagged for count in found.documents} == expected
    (flags,) = [entry for entry in found.flags if entry.layer == layer]
    assert [flags.first_position, flags.special_token, flags.norm_outlier] == bits.tolist()
    assert found.flags_layer == layer


def test_a_layer_that_was_not_collected_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    with pytest.raises(ConfigError, match="Layer 2 was not collected"):
        take(store, flags_layer=2)


def test_records_of_other_data_are_not_counted(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    store.put(keys.record(0, 3), b"{}")  # the plan has no such part
    assert take(store).total.stored == 1003
    edit_record(store, keys.record(0, 1), identity="0" * 64)
    with pytest.raises(DamagedError, match="with identity 000000000000"):
        take(store)


def test_a_record_without_the_layer_is_damaged(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    edit_record(store, keys.record(0, 0), layers=json.loads(store.read(keys.record(0, 0)))["layers"][:1])
    with pytest.raises(DamagedError, match="The record of shard 0, part 0 lacks layer 4"):
        take(store, flags_layer=4)
    with pytest.raises(DamagedError, match="lacks layer 4"):  # and whoever reads the data misses no part unseen
        read_index(store, require_identity(store), 4)


def test_corpora_have_the_tokens_that_the_manifest_says_bos_included(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model")
    corpora = []
    for name, weight in (("first", 3.0), ("second", 1.0)):
        (tmp_path / name).mkdir()
        for i in range(12):
            (tmp_path / name / f"{i}.txt").write_text(f"{name} {text(i)}")
        corpora.append({"name": name, "source": str(tmp_path / name), "weight": weight})
    values = {"data": str(tmp_path / "data"), "model": str(tmp_path / "model"), "layers": [0], "corpora": corpora}
    experiment = Experiment.model_validate(values | {"tokens": 1003, "num_shards": 3, "context": 16})
    store = open_store(experiment.data)
    manifest = prepare(experiment, store).manifest
    found = account(store, experiment, documents=True)
    assert_adds_up(found, 1003)
    assert [(count.corpus, count.planned, count.documents) for count in found.corpora] == [
        (corpus.name, corpus.tokens, corpus.documents) for corpus in manifest.corpora
    ]
    assert found.documents is not None
    contexts = sum(Plan.of(experiment).contexts(shard) for shard in range(3))
    assert sum(count.planned for count in found.documents if count.document is None) == contexts


def test_no_tar_is_read_unless_flags_are_asked_for(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_small(store)
    for key in [key for key in store.list("activations/") if key.endswith(".tar")]:
        store.delete(key)
    assert take(store, documents=True).total.stored == 1003
