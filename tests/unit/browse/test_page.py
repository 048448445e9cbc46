"""Writing the page: whole or not there, the same bytes every time, and honest about what is missing."""

from __future__ import annotations

import gzip
import json

import pytest

from kubesae.browse.overview import NO_ANSWERS, NO_CURVES, NO_EVALUATION
from kubesae.browse.page import write_page
from kubesae.experiment import sha256_hex
from kubesae.features.reasoning import FORMAT
from kubesae.ledger import keys
from kubesae.store import open_store
from paged import CORPORA, HOSTILE, RUN, SAE, feature_json, write_paged

FOLDER = f"interpret/{SAE}/"


def page_of(store):
    found = store.list(FOLDER)
    parts = ("index.html", "page/", "features/")
    return {key: store.read(key) for key in found if key.removeprefix(FOLDER).startswith(parts)}


def overview_of(store):
    return json.loads(store.read(keys.page_file(SAE, "overview.json")))


def table_of(store):
    return json.loads(gzip.decompress(store.read(keys.page_file(SAE, "table.json.gz"))))


def test_the_page_is_the_same_bytes_every_time(written, copied):
    store, stored = copied
    for key in page_of(store):
        store.delete(key)
    write_page(store, store, stored)
    assert page_of(store) == page_of(written[0])


def test_a_page_that_is_there_is_left_alone(copied):
    store, stored = copied
    before = store.list(FOLDER)
    assert write_page(store, store, stored) == store.url_of(f"{FOLDER}index.html")
    assert store.list(FOLDER) == before


def test_it_is_written_last_and_goes_first(copied, monkeypatch):
    """A reader finds an index.html only while everything that it reads is of one page."""
    store, stored = copied
    store.delete(keys.interpretation(SAE, "answers.json"))
    done = []
    put, delete = type(store).put, type(store).delete
    monkeypatch.setattr(type(store), "put", lambda self, key, data: (done.append(("put", key)), put(self, key, data)))
    monkeypatch.setattr(type(store), "delete", lambda self, key: (done.append(("delete", key)), delete(self, key)))
    old = [key for key in store.list(keys.page_features(SAE)) if key.endswith(".bin")]
    write_page(store, store, stored)
    assert done[0] == ("delete", keys.page(SAE))
    assert done[-2:] == [("delete", old[0]), ("put", keys.page(SAE))]
    assert len([key for key in store.list(keys.page_features(SAE)) if key.endswith(".bin")]) == 1


def test_one_whose_writer_died_is_written_again(written, copied):
    store, stored = copied
    store.delete(keys.page(SAE))
    store.put(keys.page_index(SAE), b"half")
    write_page(store, store, stored)
    assert page_of(store) == page_of(written[0])


def test_it_is_written_anew_where_an_evaluation_came(copied):
    store, stored = copied
    before = overview_of(store)
    evaluation = json.loads(store.read(keys.evaluation(SAE)))
    store.put(keys.evaluation(SAE), json.dumps(evaluation | {"fvu": 0.123}).encode())
    write_page(store, store, stored)
    assert (before["numbers"]["fvu"], overview_of(store)["numbers"]["fvu"]) == (0.2, 0.123)


def test_the_overview_says_what_it_was_made_from(written):
    store, stored = written
    found = overview_of(store)
    hashes = dict(found["hashes"])
    assert (found["run"], found["sae"], found["features"], found["alive"]) == (RUN, SAE, 64, 63)
    assert hashes["data identity"] == stored.info.source.identity
    assert hashes["SAE weights"] == stored.info.source.sae_sha256
    assert hashes["tokens manifest"] == sha256_hex(store.read(keys.TOKENS_MANIFEST))
    assert hashes["tokenizer"] == sha256_hex(store.read(keys.TOKENIZER))
    assert hashes["interpretation"] == sha256_hex(store.read(keys.interpretation(SAE, "interpret.json")))
    assert found["numbers"]["ce_recovered"] == 0.93
    assert found["numbers"]["l0"] == pytest.approx(
        sum(stored.statistics["count"].to_pylist()) / stored.info.rows, rel=1e-3
    )
    assert ["k", "8"] in found["settings"]
    assert ["prefixes", "8, 16"] in found["settings"]
    curves = found["curves"]
    assert len(curves["loss"]["train"]) == 200
    assert curves["loss"]["validation"] == [[100, 0.4], [200, 0.2]]
    assert sum(curves["density"]["counts"]) == 63
    assert sum(size for _, size in found["kinds"]) == 64
    assert found["missing"] == []


def test_the_table_has_a_value_a_feature(written):
    store, stored = written
    table = table_of(store)
    assert table["count"] == stored.statistics["count"].to_pylist()
    assert table["tokens"][0][0] == HOSTILE
    assert table["flags"][3] == 8
    assert table["purity"][3] is None
    assert {len(table[name]) for name in ("max", "mean", "mean_active", "label", "kind", "purity", "tokens")} == {64}
    assert sorted(one["name"] for one in table["populations"]) == sorted(CORPORA)


def test_without_answers_it_says_so(tmp_path):
    store = open_store(str(tmp_path))
    stored = write_paged(store, answers=False)
    write_page(store, store, stored)
    assert overview_of(store)["missing"] == [NO_ANSWERS]
    table, feature = table_of(store), feature_json(store, 0)
    assert table["label"] is table["purity"] is None
    assert table["populations"] == feature["neighbours"] == feature["top_logits"] == []
    assert table["tokens"][0][0] == HOSTILE  # what features are most active on needs no answers


def test_without_a_head_it_says_why_there_are_no_logits(tmp_path):
    store = open_store(str(tmp_path))
    stored = write_paged(store, head=False)
    write_page(store, store, stored)
    assert overview_of(store)["missing"] == ["Logits: the model's head was not to be had."]
    assert feature_json(store, 0)["top_logits"] == []
    assert len(feature_json(store, 0)["neighbours"]) == 10


def test_without_evaluation_and_curves_it_says_so(copied):
    store, stored = copied
    for key in [*store.list(f"sae/{SAE}/metrics/"), keys.evaluation(SAE)]:
        store.delete(key)
    write_page(store, store, stored)
    assert overview_of(store)["missing"] == [NO_EVALUATION, NO_CURVES]
    assert overview_of(store)["curves"]["loss"] is None


def test_an_evaluation_of_other_weights_does_not_count(copied):
    store, stored = copied
    evaluation = json.loads(store.read(keys.evaluation(SAE)))
    store.put(keys.evaluation(SAE), json.dumps(evaluation | {"sae_sha256": "cd" * 32}).encode())
    write_page(store, store, stored)
    assert overview_of(store)["missing"] == [NO_EVALUATION]


def test_a_new_page_lists_the_reasoning_of_these_weights(copied):
    store, stored = copied
    summary = {"format": FORMAT, "problems": 3, "correct": None, "rankings": []}
    for name, sha256 in (("gsm8k", stored.info.source.sae_sha256), ("older", "cd" * 32)):
        document = summary | {"source": {"sae_sha256": sha256}}
        store.put(keys.reasoning(SAE, name, keys.REASONED), json.dumps(document).encode())
    store.put(keys.reasoning(SAE, "of-another-format", keys.REASONED), b'{"format": 1}')
    store.delete(keys.page(SAE))
    write_page(store, store, stored)
    (listed,) = json.loads(store.read(keys.page_file(SAE, "reasoning.json")))
    assert (listed["name"], listed["problems"], listed["survived"]) == ("gsm8k", 3, 0)
