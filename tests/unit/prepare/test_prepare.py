"""Prepare: exact totals, every row traced to its document, resumable, and nothing of another experiment overwritten."""

from __future__ import annotations

import io
import json
import resource
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest

from kubesae.corpus import Tokenizer, read_shard_tokens
from kubesae.errors import ConfigError, IdentityError, StoreError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.ledger import Plan, keys
from kubesae.prepare import prepare
from kubesae.store import open_store
from preparing import UNITS, contents, experiment, mixed

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


def test_totals_are_exact_and_every_row_traces_back(store: Store, inputs: Path) -> None:
    wanted = mixed(inputs, store.url, 2, 1)
    lines: list[str] = []
    prepared = prepare(wanted, store, say=lines.append)
    manifest, plan = prepared.manifest, Plan.of(wanted)
    assert not prepared.existed
    assert [shard.tokens for shard in manifest.shards] == [502, 501]
    assert [corpus.contexts for corpus in manifest.corpora] == [43, 21]
    assert sum(corpus.tokens for corpus in manifest.corpora) == 1003
    assert lines[-1] == "Shard 1: 501 tokens dealt"

    tokenizer = Tokenizer.load(wanted.model, None)
    documents = {}
    for unit in range(UNITS):
        for number, line in enumerate((inputs / "rows" / f"{unit}.jsonl").read_text().splitlines()):
            documents["rows", f"{unit}.jsonl:{number}"] = json.loads(line)["text"]
    for path in (inputs / "files").iterdir():
        documents["files", path.name] = path.read_text()
    dealt: dict[str, int] = {}
    for shard in range(2):
        tokens = read_shard_tokens(store, manifest, shard)
        chars = pq.read_table(io.BytesIO(store.read(keys.documents(shard))))["char"].to_pylist()
        seen = np.zeros(plan.quota(shard), np.int64)
        seen[:: wanted.context] += 1
        assert (tokens.ids[:: wanted.context] == 0).all()
        for run, char in zip(tokens.documents(0, plan.quota(shard)), chars, strict=True):
            encoded = tokenizer.encode([documents[run.corpus, run.document]])[0]
            expected = [*encoded.ids.tolist(), 1][run.offset : run.offset + run.tokens]
            assert tokens.ids[run.start : run.start + run.tokens].tolist() == expected
            assert char == (encoded.char(run.offset) if run.offset < len(encoded.ids) else -1)
            seen[run.start : run.start + run.tokens] += 1
            dealt[run.corpus] = dealt.get(run.corpus, 0) + run.tokens
        assert (seen == 1).all()
    bos = {corpus.name: corpus.contexts for corpus in manifest.corpora}
    assert {corpus.name: corpus.tokens for corpus in manifest.corpora} == {
        name: dealt[name] + bos[name] for name in bos
    }


def test_the_deal_mixes_the_corpora_into_every_part(folder_store: Store, inputs: Path) -> None:
    wanted = mixed(inputs, folder_store.url, 1, 1)
    manifest, plan = prepare(wanted, folder_store).manifest, Plan.of(wanted)
    for part in plan.all_parts():
        runs = read_shard_tokens(folder_store, manifest, part.shard).documents(part.start, part.rows)
        assert {run.corpus for run in runs} == {"rows", "files"}


def test_the_bytes_depend_on_neither_prefix_nor_place(inputs: Path, tmp_path: Path) -> None:
    shutil.copytree(inputs, tmp_path / "moved")
    stores = []
    for place, folder in ((tmp_path / "one", inputs), (tmp_path / "two", tmp_path / "moved")):
        store = open_store(str(place))
        prepare(mixed(folder, store.url, 2, 1), store)
        stores.append({key: data for key, (data, _) in contents(store).items()})
        assert str(tmp_path).encode() not in store.read(keys.TOKENS_MANIFEST)
    assert stores[0] == stores[1]


def test_another_seed_is_another_deal(inputs: Path, tmp_path: Path) -> None:
    hashes = []
    for seed in (0, 1):
        store = open_store(str(tmp_path / str(seed)))
        hashes.append(prepare(experiment(inputs, store.url, seed=seed), store).manifest.shards[0].sha256)
    assert hashes[0] != hashes[1]


def test_units_without_a_whole_context_give_none(folder_store: Store, inputs: Path) -> None:
    wanted = experiment(inputs, folder_store.url, tokens=3000, num_shards=1, context=3000)
    with pytest.raises(ConfigError, match="gives 0 contexts of 3000 tokens"):
        prepare(wanted, folder_store)


def test_temporary_files_that_cannot_grow_are_told_with_their_place(folder_store: Store, inputs: Path) -> None:
    """While a segment is packed, and while shards are dealt; nothing half done is stored, and the work goes on."""
    wanted, (soft, hard) = experiment(inputs, folder_store.url), resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(line: str) -> None:
        if line.endswith("2 of 4 units"):  # enough: the next thing is the deal
            resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
        with pytest.raises(StoreError, match=r"/kubesae-\w+/contexts: the file system failed \(File too large\)"):
            prepare(wanted, folder_store)
        assert folder_store.list() == {}
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(StoreError, match=r"/kubesae-\w+: the file system failed \(.*File too large\)"):
            prepare(wanted, folder_store, say=limited)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert prepare(wanted, folder_store).manifest.shards[0].tokens == 502


def test_what_was_prepared_before_there_were_newer_fields_is_made_to_the_same_bytes(
    folder_store: Store, inputs: Path
) -> None:
    """Hashes of ids, request and corpora as kubesae made them before `messages`, `dedup` and workers."""
    manifest = prepare(mixed(inputs, folder_store.url, 2, 1), folder_store).manifest
    assert [shard.sha256 for shard in manifest.shards] == [
        "e34b9907bf4cc4c1ec521da84fe60f451426b50cec4c16b58216928392e04d13",
        "544f0fdfd83308a34431662bff6d9f1258665be713c37faea803c19f724e1750",
    ]
    made = (manifest.request, *manifest.corpora)
    request, *corpora = (part.model_dump(mode="json") for part in made)
    assert sha256_hex(canonical_json(request)) == "3b5c4f437168857c701161014d388c74ca4589f6fba0568379facccf456d6346"
    assert sha256_hex(canonical_json(corpora)) == "5a6f617a733dc4466b761ca644a7f65a1c5a8f7cf054cee8c86f586fa55b0eb4"


def test_other_settings_are_refused_by_field_and_touch_nothing(store: Store, inputs: Path) -> None:
    prepare(experiment(inputs, store.url), store)
    before = contents(store)
    with pytest.raises(IdentityError) as caught:
        prepare(experiment(inputs, store.url, tokens=900, seed=1, bos=False), store)
    assert [line for line in str(caught.value).splitlines() if line.startswith("  ")] == [
        "  tokens: 1003 there, 900 here",
        "  bos: True there, False here",
        "  seed: 0 there, 1 here",
    ]
    assert contents(store) == before


def test_what_is_no_setting_of_the_tokens_may_change(folder_store: Store, inputs: Path) -> None:
    prepare(experiment(inputs, folder_store.url), folder_store)
    other = experiment(inputs, folder_store.url, layers=[3, 5], storage="float32", contexts_per_part=4, chunk=7)
    assert prepare(other, folder_store).existed


def test_a_corpus_that_is_too_small_is_refused_with_numbers(folder_store: Store, inputs: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(mixed(inputs, folder_store.url, 9, 1, tokens=32_000), folder_store)
    message = str(caught.value)
    assert message.startswith("Corpus rows is too small: ")
    assert "1800 are needed (28,800)" in message
    assert "Lower `tokens`" in message
    assert not folder_store.exists(keys.TOKENS_MANIFEST)


def test_a_corpus_whose_weight_gives_it_no_context(folder_store: Store, inputs: Path) -> None:
    manifest = prepare(mixed(inputs, folder_store.url, 1000, 1), folder_store).manifest
    assert [(c.name, c.contexts, c.documents, c.tokens) for c in manifest.corpora][1] == ("files", 0, 0, 0)
    assert sum(corpus.tokens for corpus in manifest.corpora) == 1003


def test_a_larger_pool_takes_contexts_from_more_documents(inputs: Path, tmp_path: Path) -> None:
    used, pools = [], []
    for pool in (1.0, 4.0):
        store = open_store(str(tmp_path / str(pool)))
        corpora = [{"name": "rows", "source": str(inputs / "rows"), "pool": pool}]
        manifest = prepare(experiment(inputs, store.url, corpora=corpora, tokens=320, num_shards=1), store).manifest
        assert manifest.corpora[0].contexts == 20
        pools.append(manifest.corpora[0].pool_contexts)
        used.append(manifest.corpora[0].documents)
    assert pools[0] == 20
    assert pools[1] >= 80
    assert used[1] > used[0]


def test_without_bos_and_separator_only_text_is_stored(folder_store: Store, inputs: Path) -> None:
    wanted = experiment(inputs, folder_store.url, bos=False, separator=False)
    manifest = prepare(wanted, folder_store).manifest
    ids = np.concatenate([read_shard_tokens(folder_store, manifest, shard).ids for shard in range(2)])
    assert not np.isin(ids, [0, 1]).any()


def test_a_tokenizer_that_does_not_fit_the_model_is_refused_before_anything_is_stored(
    folder_store: Store, inputs: Path
) -> None:
    size = Tokenizer.load(str(inputs / "tiny"), None).info.size
    with pytest.raises(ConfigError, match=rf"token ids up to {size - 1}, but the model has {size - 1} embeddings"):
        prepare(experiment(inputs, folder_store.url), folder_store, vocab_size=lambda: size - 1)
    assert folder_store.list() == {}
    prepare(experiment(inputs, folder_store.url), folder_store, vocab_size=lambda: size)


def test_bad_corpora_are_refused_before_anything_is_stored(folder_store: Store, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    for source in (tmp_path / "nowhere", tmp_path / "void"):
        corpora = [{"name": "rows", "source": str(source)}]
        with pytest.raises(ConfigError, match="Corpus rows: "):
            prepare(experiment(inputs, folder_store.url, corpora=corpora), folder_store)
    assert folder_store.list() == {}


@pytest.mark.parametrize("tokens", [33, 17, 2])
def test_a_last_context_of_a_single_token_is_exact(folder_store: Store, inputs: Path, tokens: int) -> None:
    """17 tokens in one shard: the second context is cut to its BOS, which belongs to no document."""
    wanted = experiment(inputs, folder_store.url, tokens=tokens, num_shards=1)
    manifest = prepare(wanted, folder_store).manifest
    shard = read_shard_tokens(folder_store, manifest, 0)
    assert len(shard.ids) == tokens == manifest.corpora[0].tokens
    assert Plan(tokens, 1, 16, 8, 1).contexts(0) == manifest.corpora[0].contexts
