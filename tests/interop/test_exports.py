"""Unmodified libraries open what is exported of an interpretation, and have our values.

Each runs in an environment of its own (`bench/rivals/*.txt`: made at the first use; delphi's and SAEDashboard's take
minutes and several GB).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from environments import python_of
from exported import dense, interpreted, subject
from kubesae.evaluate import evaluate
from kubesae.export import export
from kubesae.store import open_store
from small_experiment import small_experiment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LIBRARIES = Path(__file__).parent / "libraries"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "data"
    store = interpreted(folder, context=64, tokens=6003)  # windows enough for delphi to have some without a feature
    evaluate(small_experiment(store.url, context=64, tokens=6003), store, store, None, 0)
    return store


def opened_by(environment, program, *arguments):
    """Run a program in a library's environment."""
    settings = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [python_of(environment), LIBRARIES / program, *map(str, arguments)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_delphi_opens_its_cache(store, tmp_path):
    ours = subject(store)
    export(ours, "delphi", open_store(str(tmp_path / "out")))
    tokenizer = f"{store.url}/tokens/tokenizer.json"
    opened_by("interpret_delphi", "with_delphi.py", tmp_path / "out" / "latents", tokenizer, tmp_path / "found")
    found = np.load(tmp_path / "found.npz")
    assert found["tokens"].shape == (94, 64)
    assert found["latents"].tolist() == ours.active.tolist()
    f = np.zeros((*found["tokens"].shape, len(ours.features)), np.float16)
    f[tuple(found["locations"].T)] = found["activations"]
    plan, f_RF = ours.plan, dense(ours)
    for row in range(plan.tokens):
        shard, local = plan.locate(row)
        place = sum(map(plan.contexts, range(shard))) + local // 64, local % 64
        assert (f[place] == np.where(f_RF[row] > 1e-5, f_RF[row], 0).astype(np.float16)).all()
    counts = (f_RF > 1e-5).sum(0)
    assert found["counts"].tolist() == counts[counts > 0].tolist()
    answer = json.loads((tmp_path / "found.json").read_text())
    assert answer["selected"] == [3, 9]
    assert answer["config"]["kubesae"] == ours.provenance() | {"context": 64, "filled_with": 1}
    assert answer["records"].keys() == {str(feature) for feature in ours.active.tolist()}
    for feature, record in answer["records"].items():
        assert record["module"] == "layers.4"
        assert record["max"] == float(np.float16(f_RF[:, int(feature)].max()))
        assert sum(np.count_nonzero(acts) for _, acts in record["examples"]) == counts[int(feature)]
    assert any(record["not_active"] for record in answer["records"].values())


def test_saedashboard_opens_its_batches(store, tmp_path):
    ours = subject(store)
    out = open_store(str(tmp_path / "out"))
    export(ours, "sae-dashboard", out)
    opened_by("interpret_sae_dashboard", "with_sae_dashboard.py", tmp_path / "out", tmp_path / "found.json")
    answer = json.loads((tmp_path / "found.json").read_text())
    (batch,) = answer["batches"]
    assert batch == json.loads(out.read("batch-0.json"))
    assert answer["equal"]
    assert answer["settings"]["model_id"] == "planted"
    f_RF = dense(ours)
    for feature in batch["features"]:
        first = feature["activations"][0]
        most = f_RF[:, feature["feature_index"]].max()
        assert np.float32(first["values"][first["qualifying_token_index"]]) == most


def test_circuit_tracer_s_model_takes_every_feature(store, tmp_path):
    ours = subject(store)
    export(ours, "circuit-tracer", open_store(str(tmp_path / "out")))
    opened_by("export_schemas", "with_circuit_tracer.py", tmp_path / "out" / "features", tmp_path / "found.json")
    answer = json.loads((tmp_path / "found.json").read_text())
    assert answer["layers"] == ["4"]
    f_RF = dense(ours)
    assert [feature["index"] for feature in answer["features"]] == list(range(f_RF.shape[1]))
    for feature, active in zip(answer["features"], f_RF.T, strict=True):
        assert feature["act_max"] == three_digits(active.max())
        assert sum(feature["histogram"]) == pytest.approx((active > 0).sum(), abs=len(feature["histogram"]) / 2)
        top = feature["examples_quantiles"][0]["examples"]
        shown = [one["tokens_acts_list"][one["train_token_ind"]] for one in top]
        assert shown == [three_digits(value) for value in np.sort(active)[::-1][: len(shown)]]


def three_digits(value):
    """Return a number as the page has it, from which these features are."""
    return float(f"{value:.3g}")


def test_saebench_validates_its_result(store, tmp_path):
    ours = subject(store)
    out = open_store(str(tmp_path / "out"))
    export(ours, "sae-bench", out)
    result = tmp_path / "out" / "small_eval_results.json"
    opened_by("export_schemas", "with_sae_bench.py", result, tmp_path / "found.json")
    answer = json.loads((tmp_path / "found.json").read_text())
    assert answer == json.loads(out.read("small_eval_results.json"))
    assert answer["eval_result_metrics"]["sparsity"]["l0"] == ours.evaluation["l0"]
