"""Metrics of an SAE on the validation blocks, compared with their formulas over all rows at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from kubesae.cli.main import group
from kubesae.errors import ConfigError, DamagedError
from kubesae.evaluate import Evaluation, evaluate
from kubesae.experiment import canonical_json
from kubesae.sae.named import open_named
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from small_experiment import small_experiment, write_small
from small_sae import D_SAE, dense_codes, write_sae
from tiny_models import save_model

LAYER = 4


@pytest.fixture
def small(tmp_path):
    store = open_store(str(tmp_path / "data"))
    identity = write_small(store)
    write_sae(store)
    return store, identity


@pytest.fixture
def validation(small):
    """Rows [rows, d_model] and flags of the two blocks with the smallest hashes: 2% of 16 blocks are less than two."""
    store, identity = small
    refs = read_index(store, identity, LAYER)
    assert len(refs) == 16
    by_hash = sorted(refs, key=lambda ref: hashlib.sha256(f"{identity.sha256}/{ref.key}".encode()).hexdigest())
    blocks = [read_block(store, ref) for ref in by_hash[:2]]
    x = torch.from_numpy(np.concatenate([block.float32() for block in blocks])).double()
    return x, torch.from_numpy(np.concatenate([block.flags for block in blocks])) == 0


def test_metrics_are_their_formulas_over_the_validation_blocks(small, validation):
    store, identity = small
    x, unflagged = validation
    report = evaluate(small_experiment(store.url), store, store, None, 0)
    sae = open_named(store, None, identity).sae
    f = dense_codes(sae, x)
    error = (x - f @ sae.weights.W_dec_FD.double() - sae.weights.b_dec_D.double()).square().sum(1)

    def fvu(rows):
        return float(error[rows].sum() / (x[rows] - x[rows].mean(0)).square().sum())

    assert report.blocks == 2
    assert report.rows == int(unflagged.sum()) < len(x)
    assert report.flagged_share == pytest.approx(1 - float(unflagged.double().mean()))
    assert report.fvu == pytest.approx(fvu(unflagged), rel=1e-5)
    assert report.fvu_all_rows == pytest.approx(fvu(torch.ones_like(unflagged)), rel=1e-5)
    assert report.fvu != pytest.approx(report.fvu_all_rows, rel=0.01)
    assert report.fvu_pca32 == 0.0  # the activations have 8 dimensions
    active = f[unflagged] > 0
    assert report.l0 == pytest.approx(float(active.sum(1).double().mean()))
    assert report.inactive_share == float((~active.any(0)).double().mean()) >= 1 / D_SAE
    assert report.dead_share is None
    assert report.cross_entropy is None
    assert (report.architecture, report.features) == ("relu", D_SAE)
    x_hat = (f @ sae.weights.W_dec_FD.double() + sae.weights.b_dec_D.double())[unflagged]
    x = x[unflagged]
    l0 = active.sum(1)
    assert report.l0_rows.quantiles.median == sorted(l0.tolist())[(len(l0) - 1) // 2]
    assert (report.l0_rows.quantiles.least, report.l0_rows.quantiles.most) == (l0.min(), l0.max())
    assert sum(report.l0_rows.histogram.counts) == report.rows
    assert report.density.dense == int((active.double().mean(0) > 0.1).sum()) > 0
    assert sum(report.density.log10_histogram.counts) == int(active.any(0).sum())
    centred = x - x.mean(0), x_hat - x.mean(0)
    assert report.shrinkage.gamma == pytest.approx(float(x_hat.square().sum() / (x * x_hat).sum()), rel=1e-5)
    gamma = float(centred[1].square().sum() / (centred[0] * centred[1]).sum())
    assert report.shrinkage.gamma_about_mean == pytest.approx(gamma, rel=1e-4)
    assert report.shrinkage.norm_ratio == pytest.approx(float(x_hat.norm(dim=1).sum() / x.norm(dim=1).sum()), rel=1e-5)
    assert report.similarity.quantiles.most == report.similarity.closest[0].cosine


def test_the_report_is_stored_and_reads_back(small):
    store, identity = small
    report = evaluate(small_experiment(store.url), store, store, "small", 0)
    stored = store.read("sae/small/evaluation.json")
    assert Evaluation.model_validate(json.loads(stored)) == report
    assert (report.identity, report.sae, report.layer) == (identity.sha256, "small", LAYER)
    evaluate(small_experiment(store.url), store, store, "small", 0)
    assert store.read("sae/small/evaluation.json") == stored


def test_an_evaluation_of_the_same_is_not_made_again(small, monkeypatch):
    store, _ = small
    report = evaluate(small_experiment(store.url), store, store, "small", 0)
    monkeypatch.setattr("kubesae.evaluate.run.read_block", lambda *_: pytest.fail("a block was read"))
    assert evaluate(small_experiment(store.url), store, store, "small", 0) == report
    with pytest.raises(pytest.fail.Exception):
        evaluate(small_experiment(store.url), store, store, "small", 1)


@pytest.mark.parametrize("older", [{"format": 1}, {"format": 1, "fvu": 0.5}])
def test_an_evaluation_of_an_older_format_is_made_again(small, older):
    store, _ = small
    report = evaluate(small_experiment(store.url), store, store, "small", 0)
    page = store.read("sae/small/evaluation.html")
    store.put("sae/small/evaluation.json", canonical_json(older))
    store.delete("sae/small/evaluation.html")
    assert evaluate(small_experiment(store.url), store, store, "small", 0) == report
    assert store.read("sae/small/evaluation.json") == report.to_json()
    assert store.read("sae/small/evaluation.html") == page


def test_an_evaluation_of_a_newer_format_is_not_overwritten(small):
    store, _ = small
    store.put("sae/small/evaluation.json", canonical_json({"format": 99}))
    with pytest.raises(ConfigError, match="format"):
        evaluate(small_experiment(store.url), store, store, "small", 0)


def test_rows_that_are_all_flagged_say_so(small, monkeypatch):
    store, _ = small

    def flagged(*arguments):
        block = read_block(*arguments)
        return dataclasses.replace(block, flags=np.ones_like(block.flags))

    monkeypatch.setattr("kubesae.evaluate.run.read_block", flagged)
    with pytest.raises(DamagedError, match="All rows of the 2 validation blocks are flagged"):
        evaluate(small_experiment(store.url), store, store, "small", 0)


def test_without_the_model_the_report_says_why_there_is_no_cross_entropy(small, tmp_path):
    store, _ = small
    save_model(tmp_path / "model", "llama")
    with_another = small_experiment(store.url, model=str(tmp_path / "model"), layers=[1, 2])
    cases = {0: "no contexts were asked for", 3: "but the data was collected from"}
    for contexts, reason in cases.items():
        report = evaluate(with_another, store, store, None, contexts)
        assert report.cross_entropy is None
        assert reason in report.cross_entropy_reason
        assert report.fvu > 0


def test_the_command_prints_a_table(small, capsys):
    store, _ = small
    group.main(["evaluate", "--data", store.url, "--ce-contexts", "0"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("SAE small on ")
    names = ["FVU", "shrinkage", "L0", "dead features", "dense features", "alike features", "CE loss recovered"]
    assert [line.split("  ")[1] for line in lines[1:]] == names
    assert max(map(len, lines)) <= 120
    assert lines[-1].endswith("not measured: no contexts were asked for")


def test_the_command_prints_json(small, capsys):
    store, _ = small
    group.main(["evaluate", "--data", store.url, "--ce-contexts", "0", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == json.loads(store.read("sae/small/evaluation.json"))


def test_nothing_to_evaluate(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(ConfigError, match="kubesae collect"):
        evaluate(small_experiment(store.url), store, store, None, 0)
    write_small(store)
    with pytest.raises(ConfigError, match="kubesae train"):
        evaluate(small_experiment(store.url), store, store, None, 0)
