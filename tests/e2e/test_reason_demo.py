"""`kubesae reason` with the demo's real model: four problems, where its weights are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kubesae.cli.main import _run
from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json
from kubesae.ledger import keys
from kubesae.model.smollm2 import demo_model
from kubesae.sae import Normaliser, SaeConfig, Weights, save_sae
from kubesae.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROBLEMS = Path(__file__).parents[2] / "examples" / "07-reasoning" / "problems.jsonl"
D_MODEL, D_SAE, LAYER = 576, 256, 3


@pytest.fixture
def experiment(tmp_path):
    """The first tokens of the problems themselves, and an SAE of random directions."""
    try:
        model = demo_model()
    except ConfigError as error:
        pytest.skip(str(error))
    data = tmp_path / "data"
    values = {
        "data": str(data),
        "model": str(model),
        "layers": [LAYER],
        "corpora": [{"name": "problems", "source": str(PROBLEMS), "field": "problem"}],
        "tokens": 2_000,
        "num_shards": 1,
        "context": 64,
        "contexts_per_part": 8,
        "chunk": 1_000,
        "pilot": {"tokens": 512, "chunk": 512},
    }
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(values))
    for command in (["prepare", str(file)], ["collect", str(file), "--all"], ["verify", str(file)]):
        assert _run(command) == 0
    directions = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=torch.Generator().manual_seed(0)))
    weights = Weights(directions, torch.zeros(D_SAE), directions.clone(), torch.zeros(D_MODEL))
    config = SaeConfig(architecture="topk", d_model=D_MODEL, d_sae=D_SAE, k=8)
    store, folder = open_store(str(data)), keys.checkpoint_folder("random", 1)
    save_sae(store, folder, config, weights, Normaliser(torch.zeros(D_MODEL), 1.0), {"layer": LAYER})
    pointer = {"checkpoint": folder.removeprefix(keys.sae_folder("random")).rstrip("/")}
    store.put(keys.best("random"), canonical_json(pointer))
    assert _run(["interpret", str(file)]) == 0
    return file


def test_four_problems(experiment, capsys):
    arguments = ["reason", str(experiment), "--problems", str(PROBLEMS), "--limit", "4", "--max-tokens", "48"]
    arguments += ["--tested", "2", "--texts", "4", "--paraphrased", "1", "--json"]
    capsys.readouterr()
    assert _run(arguments) == 0
    first = capsys.readouterr().out
    summary = json.loads(first)
    assert summary["scored"] == 4
    assert summary["source"]["chat"]
    assert 4 <= summary["tokens"] <= 4 * 48
    assert summary["intervention"] is None
    assert _run(arguments) == 0
    assert capsys.readouterr().out == first
    assert np.isfinite(summary["accuracy"])
