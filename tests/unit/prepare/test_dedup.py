"""Documents that came before are dropped, whoever tokenises what, and the first of each text stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kubesae.corpus import Tokenizer, read_shard_tokens
from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import keys
from kubesae.prepare import prepare, prepare_share
from kubesae.store import open_store
from preparing import rows_experiment, some_units, tokens_of, write_units

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = 1401
UNIQUE = some_units([4, 4, 4, 4, 4])


def in_order(folder: Path) -> list[int]:
    """The numbers of the units in the order of the seed."""
    from kubesae.corpus import LocalFiles, open_source

    source = open_source(rows_experiment(folder, "unused", TOKENS).corpora[0], 0)
    assert isinstance(source, LocalFiles)
    return [int(path.stem) for path in source.files]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give five units, all but the first of which repeat documents: of earlier units, and their own."""
    order = in_order(write_units(tmp_path_factory.mktemp("order"), UNIQUE))
    units: list[list[str]] = [[] for _ in UNIQUE]
    before: list[str] = []
    for unit in order:
        units[unit] = [*before[-3:], *UNIQUE[unit], UNIQUE[unit][0]] if before else list(UNIQUE[unit])
        before += UNIQUE[unit]
    return write_units(tmp_path_factory.mktemp("inputs"), units)


def test_what_is_left_is_the_corpus_without_them(inputs: Path, tmp_path: Path) -> None:
    """The ids are those of the same units written without the repeats."""
    clean = write_units(tmp_path / "clean", UNIQUE)
    expected, store = open_store(str(tmp_path / "expected")), open_store(str(tmp_path / "data"))
    wanted = prepare(rows_experiment(clean, expected.url, TOKENS), expected).manifest
    experiment = rows_experiment(inputs, store.url, TOKENS, corpus_dedup=True)
    manifest = prepare(experiment, store).manifest
    assert [shard.sha256 for shard in manifest.shards] == [shard.sha256 for shard in wanted.shards]
    tokenizer = Tokenizer.load(experiment.model, None)
    (corpus,) = manifest.corpora
    read = [key for key in store.list(keys.segments("rows")) if key.endswith(".json")]
    assert corpus.duplicates == 4 * (len(read) - 1)
    assert corpus.duplicate_tokens is not None
    lengths = [len(encoded.ids) for unit in UNIQUE for encoded in tokenizer.encode(unit)]
    assert min(lengths) * corpus.duplicates <= corpus.duplicate_tokens <= max(lengths) * corpus.duplicates


def test_without_it_they_stay_and_nothing_is_said(inputs: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    (corpus,) = prepare(rows_experiment(inputs, store.url, TOKENS), store).manifest.corpora
    assert (corpus.duplicates, corpus.duplicate_tokens) == (None, None)
    assert b"duplicates" not in store.read(keys.TOKENS_MANIFEST)
    assert not [key for key in store.list("tokens/") if "digests" in key]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
def test_workers_in_any_order_drop_the_same(inputs: Path, tmp_path: Path, order: tuple[int, ...]) -> None:
    alone, store = open_store(str(tmp_path / "alone")), open_store(str(tmp_path / "data"))
    prepare(rows_experiment(inputs, alone.url, TOKENS, corpus_dedup=True), alone)
    experiment = rows_experiment(inputs, store.url, TOKENS, corpus_dedup=True)
    results = [prepare_share(experiment, store, index, 3) for index in order]
    assert results[-1] is not None
    assert tokens_of(store) == tokens_of(alone)


def test_no_text_is_there_twice(inputs: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, TOKENS, corpus_dedup=True, num_shards=1)
    tokens = read_shard_tokens(store, prepare(experiment, store).manifest, 0)
    first = [(tokens.start[i], tokens.tokens[i]) for i in np.flatnonzero(tokens.offset == 0)]
    begins = [tuple(tokens.ids[start : start + min(count, 8)].tolist()) for start, count in first if count >= 8]
    assert len(begins) == len(set(begins)) > 10


def test_a_corpus_that_they_leave_too_small_says_so(inputs: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    with pytest.raises(ConfigError, match=r"\(1,552 tokens\) without 16 documents that came before, 102 are needed"):
        prepare(rows_experiment(inputs, store.url, 1601, corpus_dedup=True), store)


def test_a_damaged_list_says_what_to_delete(inputs: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    experiment = rows_experiment(inputs, store.url, TOKENS, corpus_dedup=True)
    assert prepare_share(experiment, store, 1, 2) is None
    key = next(key for key in store.list("tokens/") if "digests" in key)
    before = store.read(key)
    store.put(key, b"\x93NUMPY")
    with pytest.raises(DamagedError, match=r"digests-.* is damaged .* Delete it: it is made anew"):
        prepare_share(experiment, store, 0, 2)
    store.delete(key)
    assert prepare_share(experiment, store, 0, 2) is not None
    assert store.read(key) == before
