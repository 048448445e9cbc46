"""Token files are made again to the bytes that the manifest names, from segments or sources, or nothing is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae.collect import check_experiment, claim
from kubesae.errors import DamagedError
from kubesae.ledger import keys
from kubesae.model import resolve_model
from kubesae.prepare import prepare, restore_tokens
from kubesae.store import Store, open_store
from tiny_collected import tiny_experiment, tree, write_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.experiment import Experiment

FILES = [keys.tokens(0), keys.tokens(1), keys.documents(1), keys.TOKENIZER, keys.TOKENS_MANIFEST]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """Give an experiment with tokens and an identity, and no activations."""
    write_inputs(tmp_path)
    experiment = tiny_experiment(tmp_path, corpora=[
        {"name": "words", "source": str(tmp_path / "corpus"), "format": "text", "pool": 1.5},
        {"name": "more", "source": str(tmp_path / "corpus"), "format": "text", "weight": 0.3},
    ])  # fmt: skip
    store = open_store(experiment.data)
    prepare(experiment, store)
    manifest, _ = check_experiment(experiment, store)
    claim(experiment, store, manifest, resolve_model(experiment))
    return experiment


@pytest.fixture
def store(experiment: Experiment) -> Store:
    return open_store(experiment.data)


def test_each_file_comes_back(experiment: Experiment, store: Store) -> None:
    before = tree(store)
    for key in FILES:
        store.delete(key)
        restore_tokens(experiment, store, [key])
        assert tree(store) == before
    for key in FILES:
        store.put(key, b"x")
    restore_tokens(experiment, store, FILES)
    assert tree(store) == before


def test_shards_come_from_the_segments_without_sources(experiment: Experiment, store: Store) -> None:
    before = tree(store)
    store.delete(keys.tokens(1))
    store.put(keys.documents(0), b"x")
    gone = experiment.model_copy(update={"model": "/nowhere", "corpora": ()})
    restore_tokens(gone, store, [keys.tokens(1), keys.documents(0)])
    assert tree(store) == before


@pytest.mark.parametrize("ending", ["npy", "parquet", "json"])
def test_without_sound_segments_they_come_from_the_sources(experiment: Experiment, store: Store, ending: str) -> None:
    before = tree(store)
    store.put(f"{keys.segment('words', 0)}.{ending}", b"x")
    store.delete(keys.tokens(0))
    restore_tokens(experiment, store, [keys.tokens(0)])
    assert store.read(keys.tokens(0)) == before[keys.tokens(0)]


def test_sources_that_have_changed_are_said_and_nothing_is_touched(
    experiment: Experiment, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "corpus" / "7.txt").write_text("red green blue " * 50)
    store.delete(keys.TOKENS_MANIFEST)
    before = tree(store)
    why = "corpus, tokenizer or a library are not what they were.*collect under another prefix"
    left = r"manifest\.json is damaged and cannot be made again; it was left as it is"
    with pytest.raises(DamagedError, match=f"{left}.*{why}"):
        restore_tokens(experiment, store, [keys.TOKENS_MANIFEST])
    assert tree(store) == before


def test_sources_that_are_gone_are_said(experiment: Experiment, store: Store, tmp_path: Path) -> None:
    (tmp_path / "corpus").rename(tmp_path / "elsewhere")
    store.delete(keys.TOKENS_MANIFEST)
    with pytest.raises(DamagedError, match=r"the sources cannot be prepared again: .*no file matches"):
        restore_tokens(experiment, store, [keys.TOKENS_MANIFEST])
