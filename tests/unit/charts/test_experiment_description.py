"""The experiment on its way through Helm: numbers survive, hashes say what changed, presets are experiments."""

from __future__ import annotations

import json

import pytest
import yaml

from charts import CHARTS, EXPERIMENT, PRESETS, helm, merged, one, render
from kubesae.experiment import Experiment, parse_yaml, validate

NUMBERS = """
experiment:
  data: s3://bucket/prefix
  model: organisation/model
  layers: [3]
  corpora:
    - {name: web, source: organisation/corpus, weight: 0.30000000000000004, pool: 1.5}
  tokens: 1e9
  num_shards: 4
  chunk: 250_000
  seed: 9007199254740991
  bos: false
  sae:
    - {name: a, lr: 3e-4, l1_coeff: 1e-7, auxk_coeff: 0.03125, dead_after: 2.5e6, batch_size: 4_096, d_sae: 57344}
"""
PREPARED = [path for path in PRESETS if path.stem != "spot"]


def through_helm(text: str) -> str:
    ran = helm("template", "exp", str(CHARTS / "experiment"), "--values", "-", values=text)
    assert ran.returncode == 0, ran.stderr
    objects = [item for item in yaml.load_all(ran.stdout, Loader=yaml.CSafeLoader) if item]
    return one(objects, "ConfigMap")["data"]["experiment.yaml"]


def experiment_of(text: str) -> Experiment:
    return validate(Experiment, parse_yaml(text, "the file"), "the file")


def test_numbers_as_people_write_them_are_the_same_after_helm():
    direct = parse_yaml(NUMBERS, "the file")["experiment"]
    described = experiment_of(through_helm(NUMBERS))
    assert described == validate(Experiment, direct | {"name": "exp"}, "the file")
    assert described.tokens == 1_000_000_000
    assert described.seed == 2**53 - 1
    assert described.corpora[0].weight == 0.1 + 0.2
    assert (described.sae[0].lr, described.sae[0].l1_coeff, described.sae[0].dead_after) == (3e-4, 1e-7, 2_500_000)


def test_the_experiments_name_is_the_releases_unless_it_has_one():
    objects = render("experiment", {"experiment": EXPERIMENT}, name="mine")
    assert json.loads(one(objects, "ConfigMap")["data"]["experiment.yaml"])["name"] == "mine"
    objects = render("experiment", {"experiment": EXPERIMENT | {"name": "own"}}, name="mine")
    assert json.loads(one(objects, "ConfigMap")["data"]["experiment.yaml"])["name"] == "own"
    assert one(objects, "SAEExperiment")["spec"]["experiment"]["name"] == "own"


def spec(**changes):
    return one(render("experiment", {"experiment": EXPERIMENT | changes}), "SAEExperiment")["spec"]


def corpus(**changes):
    return [EXPERIMENT["corpora"][0] | changes]


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 5},
        {"layers": [3, 4]},
        {"model": "another/model"},
        {"data": "s3://bucket/other"},
        {"seed": 1},
        {"bos": False},
        {"corpora": corpus(weight=2)},
        {"corpora": corpus(field="content")},
        {"contexts_per_part": 8},
    ],
    ids=str,
)
def test_what_decides_the_data_changes_the_identity(changes):
    changes = changes | {"sae": [{"name": "first", "layer": 3}]}
    assert spec(**changes)["identity"] != spec()["identity"]


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 1_000_000_000},
        {"num_shards": 4, "seed": 0, "storage": "bfloat16", "model_revision": None},
        {"corpora": corpus(weight=1, format="auto", split="train")},
        {"collect": {"forward_batch": 2}},
        {"sae": [{"name": "other"}]},
        {"output": "s3://bucket/elsewhere"},
        {"trust_remote_code": True},
    ],
    ids=str,
)
def test_defaults_written_out_and_what_does_not_decide_the_data_leave_the_identity(changes):
    assert spec(**changes)["identity"] == spec()["identity"]


def test_a_corpus_by_its_preset_is_the_one_that_it_stands_for():
    named = spec(corpora=[{"preset": "wikipedia", "weight": 2}])
    written = [{"name": "wikipedia", "source": "wikimedia/wikipedia", "config": "20231101.en", "weight": 2}]
    assert named["identity"] == spec(corpora=written)["identity"] != spec()["identity"]
    assert named["identity"] != spec(corpora=[{"preset": "wikipedia", "weight": 2, "dedup": True}])["identity"]
    mirror = {"preset": "wikipedia", "weight": 2, "source": "organisation/mirror"}
    assert spec(corpora=[mirror])["identity"] == spec(corpora=[written[0] | {"source": mirror["source"]}])["identity"]
    assert experiment_of(json.dumps(named["experiment"])).corpora[0].source == "wikimedia/wikipedia"


def test_an_saes_hash_is_of_its_settings_without_defaults_and_without_its_name():
    saes = spec(sae=[{"name": "a"}, {"name": "b", "k": 64, "epochs": 3}, {"name": "c", "k": 65}, {"layer": 3}])["saes"]
    assert set(saes) == {"a", "b", "c", "default-3"}
    assert saes["a"] == saes["b"]
    assert len({saes["a"], saes["c"], saes["default-3"]}) == 3


def test_the_sae_that_an_experiment_has_by_default_is_one_of_them():
    without = {name: value for name, value in EXPERIMENT.items() if name != "sae"}
    objects = render("experiment", {"experiment": without})
    assert set(one(objects, "SAEExperiment")["spec"]["saes"]) == {"default-0"}


def test_spec_and_file_hold_what_the_values_say_and_no_more():
    objects = render("experiment", {"experiment": EXPERIMENT | {"collect": {"forward_batch": 2}}})
    expected = EXPERIMENT | {"collect": {"forward_batch": 2}, "name": "exp"}
    assert one(objects, "SAEExperiment")["spec"]["experiment"] == expected
    assert json.loads(one(objects, "ConfigMap")["data"]["experiment.yaml"]) == expected


@pytest.mark.parametrize("preset", PREPARED, ids=lambda path: path.stem)
def test_a_preset_is_an_experiment(preset):
    described = experiment_of(through_helm(preset.read_text(encoding="utf-8")))
    assert described.data.startswith("s3://bucket/")


@pytest.mark.parametrize("preset", PREPARED, ids=lambda path: path.stem)
def test_a_preset_passes_lint_with_and_without_spot_nodes(preset):
    spot = CHARTS / "experiment" / "presets" / "spot.yaml"
    for files in ([preset], [preset, spot]):
        flags = [part for path in files for part in ("--values", str(path))]
        ran = helm("lint", "--strict", str(CHARTS / "experiment"), *flags)
        assert ran.returncode == 0, ran.stdout


def test_the_demos_preset_is_the_demo_of_one_machine():
    from kubesae.cli.demo import demo_experiment

    text = (CHARTS / "experiment" / "presets" / "demo.yaml").read_text(encoding="utf-8")
    preset = parse_yaml(text, "the preset")["experiment"]
    described = validate(Experiment, preset, "the preset").model_dump(mode="json")
    demo = validate(Experiment, demo_experiment(CHARTS, CHARTS), "the demo").model_dump(mode="json")
    different = {name for name, value in demo.items() if described[name] != value}
    assert different == {"name", "data", "model", "corpora", "verify"}
    assert merged(described["corpora"][0], {"source": ""}) == merged(demo["corpora"][0], {"source": ""})
