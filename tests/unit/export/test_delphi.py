"""delphi's cache by its documented layout: every activation is there once, where its token is."""

import json
from itertools import pairwise

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from safetensors.numpy import load

from exported import dense, interpreted, subject
from kubesae.corpus import read_token_ids
from kubesae.errors import ConfigError
from kubesae.export import delphi, export
from kubesae.export.delphi import Places, split_edges
from kubesae.features import Codes
from kubesae.ledger import Plan
from kubesae.store import open_store
from small_sae import D_SAE

FOLDER = "latents/layers.4/"


@hypothesis.given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=20), most=st.integers(1, 20))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_splits_are_whole_and_no_larger_than_they_may_be(counts, most):
    edges = split_edges(np.array(counts), most)
    assert (edges[0], edges[-1]) == (0, len(counts))
    for first, after in pairwise(edges):
        assert first < after
        assert sum(counts[first:after]) <= most or after == first + 1


@hypothesis.given(tokens=st.integers(2, 300), shards=st.integers(1, 3), context=st.integers(1, 70), data=st.data())
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_every_row_has_a_place_of_its_own(tokens, shards, context, data):
    shards = min(shards, tokens)
    places = Places.of(Plan(tokens, shards, context, 4, 2))
    row, position = places.locate(np.arange(tokens))
    assert places.length % 32 == 0
    assert places.length - 32 < context <= places.length
    assert position.max() < context
    assert row.max() < places.first[-1]
    assert (np.diff(row * places.length + position) > 0).all()


def read(store, folder=FOLDER):
    """Return what splits hold together: [rows of tokens, length, features], tokens, and the splits' names."""
    names = [name for name in store.list(folder) if name.endswith(".safetensors")]
    edges = sorted(tuple(map(int, name.rpartition("/")[2].removesuffix(".safetensors").split("_"))) for name in names)
    f, tokens = None, None
    for first, last in edges:
        split = load(store.read(f"{folder}{first}_{last}.safetensors"))
        assert split["activations"].dtype == np.float16
        assert split["locations"].dtype in (np.uint16, np.uint32)
        assert tokens is None or (tokens == split["tokens"]).all()
        tokens = split["tokens"]
        f = np.zeros((*tokens.shape, D_SAE), np.float16) if f is None else f
        row, position, latent = split["locations"].astype(int).T
        order = np.lexsort((position, row, latent))
        assert (order == np.arange(len(order))).all()
        assert not len(latent) or latent.max() <= last - first
        assert not f[row, position, first + latent].any()
        f[row, position, first + latent] = split["activations"]
    return f, tokens, edges


@pytest.mark.parametrize(("context", "length"), [(16, 32), (64, 64), (40, 64)])
def test_activations_and_tokens_are_ours(context, length, tmp_path, monkeypatch):
    monkeypatch.setattr(delphi, "_ENTRIES", 400)
    store = interpreted(tmp_path / "data", context=context)
    opened = subject(store)
    export(opened, "delphi", open_store(str(tmp_path / "out")))
    f, tokens, edges = read(open_store(str(tmp_path / "out")))
    assert len(edges) > 2
    assert [first for first, _ in edges[1:]] == [last + 1 for _, last in edges[:-1]]
    assert tokens.shape[1] == length
    plan, ours = opened.plan, dense(opened)
    seen = np.zeros(tokens.shape, bool)
    first = 0
    for shard in range(plan.num_shards):
        ids = read_token_ids(store, opened.manifest, shard)
        for row, start in enumerate(range(0, len(ids), context), start=first):
            here = ids[start : start + context]
            assert tokens[row, : len(here)].tolist() == here.tolist()
            begin = plan.global_row(shard, start)
            wanted = ours[begin : begin + len(here)]
            assert (f[row, : len(here)] == np.where(wanted > 1e-5, wanted, 0).astype(np.float16)).all()
            seen[row, : len(here)] = True
        first += plan.contexts(shard)
    assert not f[~seen].any()
    assert (tokens[~seen] == opened.manifest.tokenizer.eos).all()
    config = json.loads(open_store(str(tmp_path / "out")).read(f"{FOLDER}config.json"))
    assert config["cache_ctx_len"] == length
    assert config["n_tokens"] == tokens.size
    assert config["n_splits"] == len(edges)
    assert config["kubesae"]["sae_sha256"] == opened.named.sha256


def test_some_features_leave_the_splits_of_others_empty(small_store, tmp_path):
    out = open_store(str(tmp_path))
    export(subject(small_store, "3,9"), "delphi", out)
    f, _, edges = read(out)
    assert np.flatnonzero(f.any((0, 1))).tolist() == [3, 9]
    assert (edges[0][0], edges[-1][1]) == (0, D_SAE - 1)


def test_what_float16_cannot_hold_is_refused(tmp_path):
    store = interpreted(tmp_path / "data", answered=False, scale=1e6)
    with pytest.raises(ConfigError, match=r"float16, and feature \d+ is up to .* above 65504"):
        export(subject(store), "delphi", open_store(str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("contexts", "dtype"), [(70_000, np.uint32), (1 << 16, np.uint16)])
def test_a_split_leaves_out_what_is_nothing_and_takes_wide_numbers_where_it_has_to(contexts, dtype):
    places = Places(np.array([0]), np.array([0, contexts]), 1, 32)
    codes = [
        Codes(0, np.ones(3, bool), np.array([0, 2, 3]), np.arange(3), np.float32([1e-6, 1, 2])),
        Codes(contexts - 2, np.ones(2, bool), np.array([0, 1, 2]), np.arange(2), np.float32([3, 1e-5])),
    ]
    split = delphi._split(iter(codes), places, np.array([3, 2]))
    assert split["locations"].dtype == dtype
    assert split["locations"].tolist() == [[1, 0, 0], [contexts - 2, 0, 0], [2, 0, 1]]
    assert split["activations"].tolist() == [1, 3, 2]
