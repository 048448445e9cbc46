"""All answers about the small synthetic experiment: made once, found again, made anew, and what a person is told."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
import pytest

from engine_outputs import source_of
from kubesae.cli.main import group
from kubesae.experiment import Interpret
from kubesae.features.answers import SCHEMAS
from kubesae.interpret import answer, interpret
from kubesae.interpret.answers.coactivation import coactivation_table, sample_rows
from kubesae.interpret.answers.logits import logits_table
from kubesae.interpret.answers.neighbours import neighbours_table
from kubesae.interpret.populations import Populations
from kubesae.ledger import Plan
from kubesae.model.head import load_head
from kubesae.store import open_store
from small_experiment import D_MODEL, small_experiment, write_small
from small_sae import D_SAE, DEAD, write_sae
from tiny_models import save_model

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Interpret(top_k=6, samples=5, context_tokens=4)
NAMES = sorted([*(f"{name}.parquet" for name in SCHEMAS), "answers.json"])


@pytest.fixture
def store(tmp_path: Path):
    store = open_store(str(tmp_path / "data"))
    write_small(store)
    write_sae(store)
    return store


@pytest.fixture
def found(store):
    return interpret(store, store, None, SETTINGS)


def files(store) -> dict[str, bytes]:
    keys = [f"interpret/small/{name}" for name in NAMES]
    return {key: store.read(key) for key in keys if store.exists(key)}


def test_every_feature_has_its_answers(store, found) -> None:
    answers = answer(found, small_experiment(store.url))
    assert len(files(store)) == len(NAMES)
    assert answers.info.coactivation_rows == found.stored.info.rows
    for name in SCHEMAS:
        assert getattr(answers, name).schema == SCHEMAS[name]
    assert answers.labels["feature"].to_pylist() == list(range(D_SAE))
    assert [kind == "dead" for kind in answers.labels["kind"].to_pylist()] == [i == DEAD for i in range(D_SAE)]
    assert answers.neighbours.equals(neighbours_table(found.named.sae.weights.W_dec_FD))
    cache = found.stored.cache(store)
    codes = list(cache.files())
    sample = sample_rows(codes, 1003, sum(len(one.row_N) for one in codes), D_SAE)
    assert answers.coactivation.equals(coactivation_table(sample))
    plan = Plan.of(found.identity)
    populations = Populations(store, found.manifest, plan, D_SAE)
    for one in codes:
        populations.add(one)
    assert answers.populations.equals(populations.table())
    assert pc.sum(answers.populations["count"]) == pc.sum(found.stored.statistics["count"])


def test_they_are_found_again_and_made_again_to_the_byte(store, found) -> None:
    said: list[str] = []
    first = answer(found, small_experiment(store.url), said.append)
    assert said[0].startswith(f"Labelled {D_SAE} features")
    before = files(store)
    for key in store.list("interpret/small/codes/"):
        store.delete(key)
    again = answer(found, small_experiment(store.url), said.append)
    assert len(said) == 2
    assert again.labels.equals(first.labels)
    store.delete("interpret/small/interpret.json")
    other = interpret(store, store, None, SETTINGS)
    store.delete("interpret/small/answers.json")
    answer(other, small_experiment(store.url))
    assert files(store) == before


@pytest.mark.parametrize("change", ["more rows kept", "another SAE", "a damaged table", "a table that is gone"])
def test_what_they_were_made_from_changed(store, found, change: str) -> None:
    answer(found, small_experiment(store.url))
    before = files(store)
    settings = SETTINGS
    if change == "more rows kept":
        settings = SETTINGS.model_copy(update={"top_k": 9})
    elif change == "another SAE":
        write_sae(store, seed=1)
    elif change == "a damaged table":
        store.put("interpret/small/labels.parquet", b"nothing")
    else:
        store.delete("interpret/small/neighbours.parquet")
    said: list[str] = []
    answers = answer(interpret(store, store, None, settings), small_experiment(store.url), said.append)
    assert said
    changed = {key for key, data in files(store).items() if data != before[key]}
    assert ("interpret/small/answers.json" in changed) == (change in {"more rows kept", "another SAE"})
    assert ("interpret/small/neighbours.parquet" in changed) == (change == "another SAE")
    assert len(answers.labels) == D_SAE


def test_without_the_model_they_say_why_there_are_no_logits(store, found) -> None:
    answers = answer(found, small_experiment(store.url))
    assert len(answers.logits) == 0
    assert answers.info.head == ""
    assert answers.info.no_head.startswith("The files of planted are not on this machine, at revision ")
    assert answers.info.no_head.endswith("delete interpret/small/answers.json and interpret again.")


def test_with_the_model_there_are_logits(store, found, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(folder, "llama", hidden_size=D_MODEL, num_attention_heads=2)
    source = source_of(folder)
    of_model = replace(found, identity=found.identity.model_copy(update={"model_revision": source.revision}))
    experiment = small_experiment(store.url, model=str(folder), layers=[1, 3])
    answers = answer(of_model, experiment)
    assert (answers.info.head, answers.info.no_head) == (source.revision, "")
    expected = logits_table(load_head(source), found.named.sae.weights.W_dec_FD, tokens=found.manifest.tokenizer.size)
    assert answers.logits.equals(expected)
    store.delete("interpret/small/answers.json")
    other = answer(found, experiment)
    assert re.match(f"The model is revision {source.revision[:12]} here, and the data", other.info.no_head)
    assert str(tmp_path) not in other.info.no_head


def run(capsys, *arguments: str) -> str:
    group.main(["interpret", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_lines_of_a_feature_end_with_its_answers(store, capsys) -> None:
    found = interpret(store, store, None, Interpret())
    answers = answer(found, small_experiment(store.url))
    feature = int(np.argmax(found.stored.statistics["count"].to_numpy()))
    shown = run(capsys, "--data", store.url, "--feature-id", str(feature), "--top-k", "1")
    assert shown.split("\n\n")[1].startswith("Rank 1:\n  Activation: ")
    lines = shown.split("\n\n")[2].splitlines()
    label = answers.labels.slice(feature, 1).to_pylist()[0]
    assert lines[0].startswith(f"Label: {label['label']} ({label['kind']}, purity {label['purity']:.0%}")
    assert lines[1] == f"Raises: unknown. {answers.info.no_head}"
    assert lines[2] == "Neighbours (cosine of the decoder):"
    other, cosine = (answers.neighbours[name][feature][0].as_py() for name in ("neighbours", "cosines"))
    assert lines[3] == f"  {cosine:.4f} feature {other}: {answers.labels['label'][other]}"
    assert lines[8] == f"Active with (Jaccard index, NPMI, of {found.stored.info.rows:,} rows):"
    other, count, jaccard, npmi = (
        answers.coactivation[name][feature][0].as_py() for name in ("others", "counts", "jaccard", "npmi")
    )
    assert lines[9] == f"  {jaccard:.4f} {npmi:+.4f} feature {other}, {count:,} rows: {answers.labels['label'][other]}"
    assert len(lines) == 15
    assert lines[14].startswith("Page: ")


def test_a_search_finds_labels_and_tokens(store, capsys) -> None:
    answers = answer(interpret(store, store, None, Interpret()), small_experiment(store.url))
    row = next(row for row in answers.labels.to_pylist() if row["kind"] != "dead")
    lines = run(capsys, "--data", store.url, "--search", row["label"].upper()).splitlines()
    assert lines[0].endswith(f"features match '{row['label'].upper()}':")
    assert f"Feature {row['feature']}: {row['label']}, {row['purity']:.0%}" in lines
    lines = run(capsys, "--data", store.url, "--search", f"w{row['token']}").splitlines()
    assert any(line.startswith(f"Feature {row['feature']}: ") for line in lines)
    assert run(capsys, "--data", store.url, "--search", "nowhere").startswith("0 features match 'nowhere':\nPage: ")
    assert f"Feature {DEAD}:" not in run(capsys, "--data", store.url, "--search", "dead")
