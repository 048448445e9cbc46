"""Where a config comes from: a folder, the list, or the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from kubesae.errors import ConfigError
from kubesae.plan import Report
from kubesae.plan.known import find_config, known_models
from planned import experiment_of
from small_hub import COMMIT, SmallHub

TINY = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 100}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "torch_dtype": "float16"}


def test_a_folder_wins(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    found = find_config(experiment_of("gpt2", model=str(tmp_path)))
    assert (found.name, found.values, found.stored) == (tmp_path.name, TINY, "float16")


@pytest.mark.parametrize("known", known_models().values(), ids=lambda known: known.ids[0])
def test_known_models_need_no_network(known, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for model in known.ids:
        assert find_config(experiment_of("gpt2", model=model)).values is known.config


def test_no_id_is_in_the_list_twice():
    ids = [model for known in known_models().values() for model in known.ids]
    assert len(set(ids)) == len(ids)


def test_a_config_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match="holds list, not an object"):
        find_config(experiment_of("gpt2", model=str(tmp_path)))


def test_others_come_from_the_hub_and_a_pinned_revision_always_does(tmp_path):
    values = {
        "data": "s3://bucket/x",
        "model": "openai-community/gpt2",  # in the list, but of another revision than the one asked for
        "model_revision": COMMIT,
        "layers": [1],
        "corpora": [{"name": "c", "source": "d/e"}],
    }
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    with SmallHub("openai-community/gpt2", {"config.json": json.dumps(TINY).encode()}) as hub:
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "kubesae", "plan", file, "--json"]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
        fetched = [seen for seen in hub.seen if seen.startswith("GET") and "config.json" in seen]
    report = Report.model_validate_json(out)
    assert (report.model.origin, report.model.layers, report.model.d_model) == ("config.json of the hub", 3, 64)
    assert len(fetched) == 1
