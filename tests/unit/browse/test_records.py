"""What the page holds of a feature: circuit-tracer's fields by their types, and the interpretation's own numbers."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow.compute as pc
import pytest

from kubesae.browse.distribution import edges_B, equal_bins, percentiles
from kubesae.corpus import Vocabulary, require_manifest
from kubesae.interpret.histogram import bins, edges
from kubesae.ledger import keys
from paged import BROKEN, HOSTILE, LAYER, SAE, feature_json

GROUPS = ["Top activations", *(f"Decile {i}" for i in range(10, 0, -1)), "Random"]
BYTES_PER_FEATURE = 6000


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def list_of(kind):
    return lambda value: isinstance(value, list) and all(kind(one) for one in value)


def is_a(kind):
    return lambda value: type(value) is kind


# circuit_tracer/frontend/feature_models.py of circuit-tracer 0.5
EXAMPLE = {
    "tokens_acts_list": list_of(number),
    "train_token_ind": is_a(int),
    "is_repeated_datapoint": is_a(bool),
    "tokens": list_of(is_a(str)),
}
FEATURE = {
    "transcoder_id": is_a(str),
    "index": is_a(int),
    "top_logits": list_of(is_a(str)),
    "bottom_logits": list_of(is_a(str)),
    "act_min": number,
    "act_max": number,
    "quantile_values": list_of(number),
    "histogram": list_of(number),
    "activation_frequency": number,
}


@pytest.mark.parametrize("feature", [0, 1, 2, 3, 63])
def test_a_feature_has_what_circuit_tracer_reads(written, feature):
    found = feature_json(written[0], feature)
    assert not [name for name, check in FEATURE.items() if not check(found[name])]
    assert found["index"] == feature
    assert [group["quantile_name"] for group in found["examples_quantiles"]] == GROUPS
    examples = [example for group in found["examples_quantiles"] for example in group["examples"]]
    assert (not examples) == (feature == 3)
    for example in examples:
        assert not [name for name, check in EXAMPLE.items() if not check(example[name])]
        assert len(example["tokens"]) == len(example["tokens_acts_list"]) > example["train_token_ind"]


def test_the_index_says_where_each_feature_lies(written):
    store, stored = written
    index = json.loads(gzip.decompress(store.read(keys.page_index(SAE))))
    assert list(index) == [str(LAYER)]
    offsets = index[str(LAYER)]["offsets"]
    assert len(offsets) == stored.info.features + 1
    assert offsets[0] == 0
    assert offsets[-1] == store.size(keys.page_features(SAE) + index[str(LAYER)]["filename"])


def test_examples_are_those_of_the_interpretation(written):
    store, stored = written
    vocabulary = Vocabulary.read(store, require_manifest(store))
    for feature in (0, 8, 20):
        rows = stored.examples.filter(pc.equal(stored.examples["feature"], feature)).to_pylist()
        top = feature_json(store, feature)["examples_quantiles"][0]["examples"]
        assert [example["row"] for example in top] == [row["row"] for row in rows]
        for example, row in zip(top, rows, strict=True):
            assert [example[name] for name in ("corpus", "document", "offset")] == [
                row[name] for name in ("corpus", "document", "offset")
            ]
            assert example["train_token_ind"] == len(row["before"])
            assert example["tokens_acts_list"] == pytest.approx(row["activations"], rel=5e-3)
            ids = [*row["before"], row["token"], *row["after"]]
            assert example["tokens"] == vocabulary.pieces(ids)


def test_groups_are_the_samples_of_the_interpretation(written):
    store, stored = written
    rows = stored.samples.filter(pc.equal(stored.samples["feature"], 9)).to_pylist()
    groups = {group["quantile_name"]: group["examples"] for group in feature_json(store, 9)["examples_quantiles"]}
    for decile in range(10):
        expected = [row["row"] for row in rows if (row["kind"], row["decile"]) == ("decile", decile)]
        assert [example["row"] for example in groups[f"Decile {decile + 1}"]] == expected
        assert expected
    random = [row["row"] for row in rows if row["kind"] == "random"]
    assert [example["row"] for example in groups["Random"]] == random[:10]


def test_what_shows_the_same_tokens_again_is_marked(written):
    for feature in range(12):
        for group in feature_json(written[0], feature)["examples_quantiles"]:
            seen = set()
            for example in group["examples"]:
                key = tuple(example["tokens"])
                assert example["is_repeated_datapoint"] == (key in seen)
                seen.add(key)


def test_bytes_that_are_no_character_are_written_out(written):
    example = feature_json(written[0], 1)["examples_quantiles"][0]["examples"][0]
    text = "".join(example["tokens"]).encode("latin-1", "backslashreplace").decode("unicode_escape")
    assert BROKEN in text.encode("latin-1", "ignore").decode(errors="ignore")
    assert example["tokens"][example["train_token_ind"]].startswith("\\x")


def test_text_of_documents_is_text(written):
    tokens = feature_json(written[0], 0)["examples_quantiles"][0]["examples"][0]["tokens"]
    assert HOSTILE in tokens


def test_numbers_and_answers_are_there(written):
    store, stored = written
    found, statistics = feature_json(store, 8), stored.statistics.slice(8, 1).to_pylist()[0]
    assert found["count"] == statistics["count"]
    for name, theirs in (("act_max", "max"), ("activation_frequency", "frequency"), ("std_active", "std_active")):
        assert found[name] == pytest.approx(statistics[theirs], rel=5e-3)
    assert (found["kind"], found["purity"]) == ("token", 0.95)
    assert len(found["top_logits"]) == len(found["top_values"]) == len(found["neighbours"]) == 10
    assert found["top_values"] == sorted(found["top_values"], reverse=True)
    assert [name for name, *_ in found["populations"]] == ["code", "words"]
    first, counts = found["log_histogram"]["first"], found["log_histogram"]["counts"]
    assert counts == statistics["histogram"][first : first + len(counts)]
    assert sum(counts) == sum(found["positions"]) == found["count"]


def test_a_feature_takes_at_most_six_kilobytes_on_average(written):
    store, stored = written
    (file,) = (key for key in store.list(keys.page_features(SAE)) if key.endswith(".bin"))
    assert 1000 < store.size(file) / stored.info.features <= BYTES_PER_FEATURE


def test_bins_are_the_interpretation_s():
    assert edges_B().tolist() == edges().tolist()


def test_percentiles_and_equal_bins_are_close_to_those_of_the_values():
    values = np.random.default_rng(0).gamma(2.0, 3.0, 20_000).astype(np.float32)
    count_FB = np.bincount(bins(values), minlength=64)[None]
    most = float(values.max())
    assert percentiles(count_FB, np.array([most]))[0] == pytest.approx(np.percentile(values, range(1, 100)), rel=0.12)
    (found,) = equal_bins(count_FB, np.array([most]))
    assert sum(found) == pytest.approx(len(values), abs=20)
    expected = np.histogram(values, 40, (0, most))[0]
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() < 0.02 * len(values)


def test_a_feature_that_is_never_active_has_no_distribution(written):
    found = feature_json(written[0], 3)
    assert found["quantile_values"] == found["histogram"] == found["log_histogram"]["counts"] == []
    assert (found["count"], found["act_max"], found["log_histogram"]["first"]) == (0, 0, 0)
