"""One pass over the small synthetic experiment, compared with the same from all activations at once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from kubesae.cli.main import group
from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.errors import ConfigError
from kubesae.experiment import Interpret, canonical_json
from kubesae.features import CodesFile
from kubesae.interpret import interpret, scan
from kubesae.interpret.histogram import BINS, bins
from kubesae.interpret.kept import by_hash
from kubesae.interpret.populations import Populations
from kubesae.interpret.state import to_bytes
from kubesae.ledger import Plan
from kubesae.sae.named import open_named
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from small_experiment import write_small
from small_sae import D_SAE, DEAD, dense_codes, write_sae

SETTINGS = Interpret(top_k=6, samples=5, context_tokens=4)
LAYER = 4
CONTRACTS = Path(__file__).parents[3] / "docs" / "contracts.md"


@pytest.fixture
def small(tmp_path):
    store = open_store(str(tmp_path / "data"))
    identity = write_small(store)
    write_sae(store)
    return store, identity


@pytest.fixture
def everything(small):
    """Activations of every feature on all rows [rows, features], 0 on flagged ones, and the flags."""
    store, identity = small
    blocks = [read_block(store, ref) for ref in read_index(store, identity, LAYER)]
    x = torch.from_numpy(np.concatenate([block.float32() for block in blocks]))
    flags = np.concatenate([block.flags for block in blocks])
    f = dense_codes(open_named(store, None, identity).sae, x).numpy()
    f[flags != 0] = 0
    return f, flags


def without_activations(store):
    for key in store.list("activations/layer-"):
        store.delete(key)


def test_statistics_are_those_of_all_unflagged_rows(small, everything):
    store, _ = small
    f, flags = everything
    stored = interpret(store, store, None, SETTINGS).stored
    unflagged = int((flags == 0).sum())
    assert (stored.info.rows, stored.info.flagged_rows) == (unflagged, len(flags) - unflagged)
    assert 0 < unflagged < len(flags) == 1003
    table = {name: stored.statistics[name].to_numpy() for name in stored.statistics.column_names}
    assert table["feature"].tolist() == list(range(D_SAE))
    assert table["count"].tolist() == (f > 0).sum(0).tolist()
    np.testing.assert_allclose(table["max"], f.max(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table["mean"], f.sum(0) / unflagged, rtol=1e-5)
    np.testing.assert_allclose(table["mean_active"], f.sum(0) / np.maximum((f > 0).sum(0), 1), rtol=1e-5)
    np.testing.assert_allclose(table["frequency"], (f > 0).sum(0) / unflagged, rtol=1e-12)
    assert table["count"][DEAD] == table["max"][DEAD] == table["mean_active"][DEAD] == table["std_active"][DEAD] == 0
    for feature in range(D_SAE):
        active = f[f[:, feature] > 0, feature]
        assert table["histogram"][feature].sum() == len(active)
        if len(active):
            assert table["mean_square_active"][feature] == pytest.approx((active**2).mean(), rel=1e-5)
            assert table["std_active"][feature] == pytest.approx(active.std(), rel=1e-4, abs=1e-6)
            inside = bins(active.astype(np.float32))  # a value at an edge may be rounded to the other side of it
            assert np.abs(np.cumsum(np.bincount(inside, minlength=BINS) - table["histogram"][feature])).max() <= 1


def test_examples_are_the_largest_activations_with_their_origin(small, everything):
    store, identity = small
    f, _ = everything
    examples = interpret(store, store, None, SETTINGS).stored.examples
    plan, manifest = Plan.of(identity), require_manifest(store)
    tokens = [read_shard_tokens(store, manifest, shard) for shard in range(2)]
    for feature in range(D_SAE):
        rows = examples.filter(pc.equal(examples["feature"], feature)).to_pylist()
        expected = np.sort(f[:, feature])[::-1][: SETTINGS.top_k]
        assert [row["rank"] for row in rows] == list(range(1, 1 + (expected > 0).sum()))
        for row, value in zip(rows, expected, strict=False):
            assert row["activation"] == pytest.approx(value, rel=1e-5)
            assert f[row["row"], feature] == pytest.approx(value, rel=1e-5)
            shard, at = plan.locate(row["row"])
            begin, end = at - at % 16, min(at - at % 16 + 16, plan.quota(shard))
            ids = tokens[shard].ids
            assert row["token"] == ids[at]
            assert row["before"] == ids[max(begin, at - 4) : at].tolist()
            assert row["after"] == ids[at + 1 : min(end, at + 5)].tolist()
            assert row["document"] == f"document-{shard}-{at // 100}"
            assert (row["corpus"], row["offset"]) == ("planted", at % 100)


def test_samples_are_random_rows_and_some_of_each_decile(small, everything):
    store, _ = small
    f, _ = everything
    stored = interpret(store, store, None, SETTINGS).stored
    contexts = {(row["feature"], row["row"]): row for row in stored.examples.to_pylist()}
    for feature in range(D_SAE):
        rows = stored.samples.filter(pc.equal(stored.samples["feature"], feature)).to_pylist()
        active = np.flatnonzero(f[:, feature] > 0)
        hashed = active[np.argsort(by_hash(active))].tolist()
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert [row["row"] for row in rows if row["kind"] == "random"] == hashed[: SETTINGS.samples]
        of_deciles = [row for row in rows if row["kind"] == "decile"]
        assert len({row["row"] for row in of_deciles}) == len(of_deciles)
        deciles = [row["decile"] for row in of_deciles]
        assert deciles == sorted(deciles)
        assert all(0 <= decile < 10 and deciles.count(decile) <= 2 for decile in deciles)
        if len(active) > 100:
            assert len(set(deciles)) >= 8
        for row in rows:
            assert row["activation"] == pytest.approx(f[row["row"], feature], rel=1e-5, abs=1e-6)
            # an estimate: half octaves are not told apart further
            assert row["decile"] / 10 == pytest.approx((f[active, feature] < row["activation"]).mean(), abs=0.3)
            shown = contexts.get((feature, row["row"]), row)
            assert [row[name] for name in ("token", "before", "after", "document", "offset")] == [
                shown[name] for name in ("token", "before", "after", "document", "offset")
            ]


def test_the_cache_holds_every_activation(small, everything):
    store, _ = small
    f, flags = everything
    stored = interpret(store, store, None, SETTINGS).stored
    cache = stored.cache(store)
    found = np.zeros_like(f)
    for codes in cache.files():
        rows = codes.first_row + codes.row_N.astype(np.int64)
        found[rows, codes.features_N()] = codes.value_N
        assert (codes.value_N > 0).all()
        assert codes.kept_R.tolist() == (flags[codes.first_row :][: len(codes.kept_R)] == 0).tolist()
    assert ((found > 0) == (f > 0)).all()
    np.testing.assert_allclose(found, f, rtol=1e-5, atol=1e-6)
    for feature in range(D_SAE):
        rows, values = cache.of(feature)
        assert rows.tolist() == np.flatnonzero(found[:, feature]).tolist()
        assert values.tolist() == found[rows, feature].tolist()
    for table in (stored.examples, stored.samples):
        for row in table.to_pylist():
            begin = row["row"] - len(row["before"])
            assert row["activations"] == found[begin : row["row"] + 1 + len(row["after"]), row["feature"]].tolist()
            assert row["activations"][len(row["before"])] == row["activation"]


def test_positions_are_counted_by_octave(small, everything):
    store, identity = small
    f, _ = everything
    stored = interpret(store, store, None, SETTINGS).stored
    plan = Plan.of(identity)
    octave = [(plan.locate(row)[1] % 16 + 1).bit_length() - 1 for row in range(len(f))]
    expected = [[int(((f[:, i] > 0) & (np.array(octave) == b)).sum()) for b in range(16)] for i in range(D_SAE)]
    assert stored.statistics["positions"].to_pylist() == expected


def test_populations_are_corpora(small, everything):
    store, identity = small
    f, flags = everything
    manifest, cache = require_manifest(store), interpret(store, store, None, SETTINGS).stored.cache(store)
    populations = Populations(store, manifest, Plan.of(identity), cache.features)
    for codes in cache.files():
        populations.add(codes)
    table = populations.table().to_pylist()
    assert [row["feature"] for row in table] == list(range(D_SAE))
    for row in table:
        active = f[f[:, row["feature"]] > 0, row["feature"]]
        assert (row["population"], row["rows"], row["count"]) == ("planted", (flags == 0).sum(), len(active))
        assert row["mean_active"] == pytest.approx(active.mean() if len(active) else 0, rel=1e-5)


def test_every_column_is_in_the_contract(small):
    store, _ = small
    stored = interpret(store, store, None, SETTINGS).stored
    said = set(re.findall(r"`(\w+)`", CONTRACTS.read_text().partition("## Evaluation and interpretation")[2]))
    assert {*stored.statistics.column_names, *stored.examples.column_names, *stored.samples.column_names} <= said


def test_contexts_stop_at_their_window(small):
    store, _ = small
    examples = interpret(store, store, None, Interpret(top_k=50, context_tokens=100)).stored.examples.to_pylist()
    lengths = {(row["row"], len(row["before"]), len(row["after"])) for row in examples}
    assert all(before + 1 + after in {16, 6, 5} for _, before, after in lengths)
    assert {1, 15} <= {before for _, before, _ in lengths}


def test_a_second_call_reads_what_the_first_one_stored(small):
    store, _ = small
    first = interpret(store, store, "small", SETTINGS).stored
    without_activations(store)
    second = interpret(store, store, "small", SETTINGS).stored
    assert second.info == first.info
    assert second.statistics.equals(first.statistics)
    assert second.examples.equals(first.examples)
    fewer = interpret(store, store, "small", SETTINGS.model_copy(update={"top_k": 2})).stored
    assert fewer.info.source.top_k == SETTINGS.top_k


def test_the_same_pass_writes_the_same_bytes(small):
    store, _ = small
    interpret(store, store, "small", SETTINGS)
    before = {key: store.read(key) for key in store.list("interpret/")}
    assert sorted(key for key in before if not key.startswith("interpret/small/codes/")) == [
        f"interpret/small/{name}"
        for name in ("examples.parquet", "interpret.json", "samples.parquet", "statistics.parquet")
    ]
    assert len(before) == 4 + 2  # a unit for each shard
    store.delete("interpret/small/interpret.json")
    interpret(store, store, "small", SETTINGS)
    assert {key: store.read(key) for key in store.list("interpret/")} == before


@pytest.mark.parametrize(
    "change", ["another SAE", "more rows kept", "more samples", "a half replaced file", "codes that are gone"]
)
def test_what_was_made_from_something_else_is_made_anew(small, change):
    store, _ = small
    before = interpret(store, store, "small", SETTINGS).stored
    settings = SETTINGS
    if change == "another SAE":
        write_sae(store, seed=1)
    elif change == "more rows kept":
        settings = SETTINGS.model_copy(update={"top_k": 7})
    elif change == "more samples":
        settings = SETTINGS.model_copy(update={"samples": 6})
    elif change == "codes that are gone":
        store.delete(before.info.codes[1].key)
    else:
        store.put("interpret/small/examples.parquet", store.read("interpret/small/statistics.parquet"))
    after = interpret(store, store, "small", settings).stored
    assert (after.info == before.info) == (change in {"a half replaced file", "codes that are gone"})
    assert {file.key for file in after.info.codes} <= set(store.list("interpret/small/codes/"))
    assert len(after.examples) > 0
    assert "activation" in after.examples.column_names


def test_an_interpretation_of_the_older_format_is_made_anew(small):
    store, _ = small
    before = interpret(store, store, "small", SETTINGS).stored
    document = json.loads(store.read("interpret/small/interpret.json")) | {"format": 2}
    del document["codes"]
    store.put("interpret/small/interpret.json", canonical_json(document))
    for key in store.list("interpret/small/codes/"):
        store.delete(key)
    after = interpret(store, store, "small", SETTINGS).stored
    assert after.info == before.info
    assert len(store.list("interpret/small/codes/")) == 2


def test_workers_over_parts_of_the_blocks_give_the_bits_of_one(small):
    store, identity = small
    refs, sae = read_index(store, identity, LAYER), open_named(store, None, identity).sae
    merged = scan(store, refs[2::3], sae, 5, 4)
    for first in (0, 1):
        merged.merge(scan(store, refs[first::3], sae, 5, 4))
    file = CodesFile(key="k", first_row=0, rows=1, entries=1, sha256="s")
    assert to_bytes(merged, file) == to_bytes(scan(store, refs, sae, 5, 4), file)


def test_more_examples_than_are_stored_come_from_the_cache(small):
    store, _ = small
    found = interpret(store, store, None, SETTINGS)
    without_activations(store)
    feature = int(np.argmax(found.stored.statistics["count"].to_numpy()))
    stored, more = found.examples(feature, 6), found.examples(feature, 30)
    assert len(more) == 30
    assert set(more["feature"].to_pylist()) == {feature}
    assert more.slice(0, 6).to_pylist() == stored.to_pylist()
    assert (np.diff(more["activation"].to_numpy()) <= 0).all()
    active = found.stored.statistics["count"][feature].as_py()
    assert len(found.examples(feature, 10_000)) == active
    assert len(found.examples(DEAD, 10_000)) == 0
    assert len(found.examples(feature, 2)) == 2


@pytest.mark.parametrize("feature", [-1, D_SAE])
def test_a_feature_that_is_not_there_is_named_with_the_range(small, feature):
    store, _ = small
    with pytest.raises(ConfigError, match=f"no feature {feature}: its features are 0 to 23"):
        interpret(store, store, None, SETTINGS).examples(feature, 1)


def test_which_sae(small):
    store, identity = small
    with pytest.raises(ConfigError, match=r"no SAE 'other' at .*small"):
        open_named(store, "other", identity)
    write_sae(store, "wide", d_model=12)
    write_sae(store, "elsewhere", layer=3)
    with pytest.raises(ConfigError, match="--sae-name: elsewhere, small, wide"):
        open_named(store, None, identity)
    with pytest.raises(ConfigError, match="wide is of layer 4, 12 wide"):
        open_named(store, "wide", identity)
    with pytest.raises(ConfigError, match="elsewhere is of layer 3"):
        open_named(store, "elsewhere", identity)


def test_nothing_to_interpret(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigError, match="kubesae collect"):
        interpret(store, store, None, SETTINGS)
    identity = write_small(store)
    with pytest.raises(ConfigError, match="kubesae train"):
        open_named(store, None, identity)


def run(capsys, *arguments):
    group.main(["interpret", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_lines_of_statistics_read_as_documented(small, capsys):
    store, _ = small
    shown = run(capsys, "--data", store.url, "--statistics")
    number = r"\d+\.\d{4}"
    for title in ("Max Activation", "Frequency"):
        block = shown.split(f"Top 20 Features by {title}:\n")[1].splitlines()[:20]
        for rank, line in enumerate(block, 1):
            assert re.fullmatch(rf"{rank:2d}\. Feature \d+: max={number}, mean={number}, freq={number}", line)
    assert "23 of 24 features active" in shown


def test_lines_of_a_feature_read_as_documented(small, capsys):
    store, _ = small
    shown = run(capsys, "--data", store.url, "--feature-id", "3", "--top-k", "2", "--context-tokens", "3")
    lines = iter(shown.split("\n\n", 1)[1].splitlines())
    for rank in (1, 2):
        assert next(lines) == f"Rank {rank}:"
        assert re.fullmatch(r"  Activation: \d+\.\d{4}", next(lines))
        assert re.fullmatch(r"  Token Index: \d+", next(lines))
        token = re.fullmatch(r"  Token ID: (\d+)", next(lines))
        assert re.fullmatch(rf"  Token Text: ' ?w{token[1]}'", next(lines))
        assert re.fullmatch(rf"  Context: .*» ?w{token[1]}«.*", next(lines))
        assert re.fullmatch(r"  Document: document-\d-\d \(planted\), token \d+", next(lines))
        next(lines, None)


def test_a_worker_whose_peers_are_not_done_says_so(small, capsys):
    store, _ = small
    shown = run(capsys, "--data", store.url, "--index", "0", "--of", "2")
    assert shown.splitlines()[-1] == "Worker 0 of 2 has encoded its units. Others have not: whoever is last merges"
    shown = run(capsys, "--data", store.url, "--index", "1", "--of", "2")
    assert "23 of 24 features active" in shown
    assert not store.list("interpret/small/units/")


def test_a_feature_that_is_never_active_says_so(small, capsys):
    store, _ = small
    shown = run(capsys, "--data", store.url, "--feature-id", str(DEAD))
    assert "Feature 5: max=0.0000, mean=0.0000, freq=0.0000\nIt is active on no row of this data.\n" in shown
    assert shown.endswith("/interpret/small/index.html#/feature/5\n")


def test_top_k_alone_is_a_mistake(small):
    store, _ = small
    with pytest.raises(ConfigError, match="give --feature-id too"):
        group.main(["interpret", "--data", store.url, "--top-k", "3"], standalone_mode=False)
