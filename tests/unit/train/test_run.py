"""A training from end to end: what it prints, stores and refuses."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from kubesae.errors import ConfigError, IdentityError
from kubesae.ledger import keys, read_identity
from kubesae.sae import load_sae
from kubesae.shards import read_block, read_index
from kubesae.shards.split import split_blocks
from kubesae.store import open_store
from small_experiment import write_small
from small_training import BATCHTOPK, GATED, JUMPRELU, MATRYOSHKA, RELU, SMALL, TOPK, Training

if TYPE_CHECKING:
    from pathlib import Path

of_every_architecture = pytest.mark.parametrize(
    "settings", [TOPK, BATCHTOPK, MATRYOSHKA, RELU, JUMPRELU, GATED], ids=lambda settings: settings["architecture"]
)


@of_every_architecture
def test_lines_are_what_people_were_promised(training: Training, settings: dict[str, object]) -> None:
    training.run(settings)
    number = r"\d+\.\d{6}"
    expected = [
        "Found 6 activation chunks",
        "Total activations: 1,003",
        r"Train size: \d+",
        r"Val size: \d+",
    ]
    for epoch in (1, 2, 3):
        expected += [
            f"Epoch {epoch}:",
            rf"  Train - Loss: {number}, L0: \d+\.\d",
            rf"  Val   - Loss: {number}, L0: \d+\.\d",
            r"  FVU: \d\.\d{4} \(PCA of rank 32: \d\.\d{4}\), dead features: \d+\.\d\d%",
            rf"  ✓ New best model! \(val_loss={number}\)",
        ]
    for line, pattern in zip(training.lines, expected, strict=False):
        assert re.fullmatch(pattern, line), (line, pattern)
    sizes = [int(line.rpartition(" ")[2].replace(",", "")) for line in training.lines[2:4]]
    assert sum(sizes) == 1003


@of_every_architecture
def test_reported_metrics_are_those_of_the_exported_sae(training: Training, settings: dict[str, object]) -> None:
    """Measured anew with numpy, in raw units, on the rows that validation must have had."""
    result = training.run(settings)
    identity = read_identity(training.data)
    split = split_blocks(read_index(training.data, identity, 4), identity.sha256, 0.02)
    blocks = [read_block(training.data, ref) for ref in split.validation]
    x = np.concatenate([block.float32()[block.flags == 0] for block in blocks]).astype(np.float64)
    sae = load_sae(f"{training.output.url}/{result.best}")
    x_hat, f = (tensor.double().numpy() for tensor in sae(torch.from_numpy(x).float()))
    error = (x - x_hat) ** 2
    assert result.metrics["fvu"] == pytest.approx(error.sum() / ((x - x.mean(0)) ** 2).sum(), rel=1e-4)
    assert result.metrics["mse_raw"] == pytest.approx(error.mean(), rel=1e-4)
    assert result.metrics["l0"] == pytest.approx((f > 0).sum(1).mean(), rel=1e-3)
    assert result.metrics["validation_rows"] == len(x)
    assert result.metrics["fvu"] < 0.8
    if settings["architecture"] in {"batchtopk", "matryoshka"}:
        assert result.metrics["l0"] == pytest.approx(settings["k"], abs=0.5 / len(x) + 0.01 * settings["k"])


def test_what_lies_in_the_store(training: Training) -> None:
    before = training.data.list()
    result = training.run(TOPK)
    assert training.data.list() == before
    assert result.name == "layer-004-topk-24"
    files = training.files()
    folder = keys.sae_folder(result.name)
    steps = result.metrics["step"]
    names = {key.removeprefix(folder) for key in files}
    newest = {f"checkpoints/step-{steps:08d}/{name}" for name in
              ("trainer.safetensors", "trainer.json", "sae.safetensors", "metadata.json")}  # fmt: skip
    assert names >= newest | {"config.json", "best.json", "report.html", f"metrics/{steps:08d}.jsonl"}
    config = json.loads(files[folder + "config.json"])
    assert config["identity"] == read_identity(training.data).sha256
    assert config["sae"]["layer"] == 4
    pointer = json.loads(files[folder + "best.json"])
    assert pointer["checkpoint"] == f"checkpoints/step-{steps:08d}"
    metadata = json.loads(files[result.best + "metadata.json"])
    assert metadata["metrics"]["fvu"] == pointer["fvu"] == result.metrics["fvu"]
    assert (metadata["layer"], metadata["model"], metadata["training"]["lr"]) == (4, "planted", 5e-3)


def test_metrics_have_a_line_a_step_and_an_epoch(training: Training) -> None:
    result = training.run(TOPK)
    lines = [json.loads(text) for data in training.files(".jsonl").values() for text in data.splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "step"]
    assert steps == list(range(1, result.metrics["step"] + 1))
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [1, 2, 3]
    assert {"loss", "mse", "l0", "lr", "l1_coeff", "rows", "data_wait_share", "tokens_per_second"} <= set(lines[0])


def test_a_finished_training_is_not_repeated(training: Training) -> None:
    first = training.run(TOPK)
    files, lines = training.files(), len(training.lines)
    second = training.run(TOPK)
    assert second == first
    assert training.files() == files
    assert not any(line.startswith("Epoch") for line in training.lines[lines:])


def test_a_name_with_other_settings_is_refused(training: Training) -> None:
    training.run(TOPK)
    files = training.files()
    with pytest.raises(IdentityError, match=r"sae.lr: 0.005 there, 0.01 here"):
        training.run(TOPK | {"lr": 1e-2})
    assert training.files() == files
    training.run(TOPK | {"lr": 1e-2, "name": "other", "epochs": 1})


def test_the_best_epoch_is_the_one_with_the_least_validation_loss(training: Training, monkeypatch) -> None:
    from kubesae.train.learner import Learner

    losses = iter([0.5, 0.2, 0.4])
    monkeypatch.setattr(Learner, "validation_loss", lambda *_: next(losses))
    result = training.run(TOPK)
    assert result.metrics["epoch"] == 2
    assert sum("New best model" in line for line in training.lines) == 2
    assert load_sae(training.output.child("sae/layer-004-topk-24").url).metadata["epochs"] == 2


def test_a_part_of_the_data_is_enough_with_max_tokens(training: Training) -> None:
    training.run(TOPK | {"max_tokens": 400, "epochs": 1})
    sizes = [int(line.rpartition(" ")[2].replace(",", "")) for line in training.lines[2:4]]
    assert 400 <= sum(sizes) < 480


@pytest.mark.parametrize(
    ("settings", "coefficient", "tolerance"),
    [
        (RELU, "l1-coeff", 0.05),
        (JUMPRELU, "l0-coeff", 0.05),
        (JUMPRELU | {"jumprelu_recipe": "gdm"}, "l0-coeff", 0.1),  # few entries lie in its narrow kernel
        (GATED, "l1-coeff", 0.05),
    ],
    ids=["relu", "jumprelu", "jumprelu-gdm", "gated"],
)
def test_target_l0_is_found(training: Training, settings: dict[str, Any], coefficient: str, tolerance: float) -> None:
    """From a coefficient that is far too low; the advice names the one it found."""
    much = {"target_l0": 5.0, "l1_coeff": 1e-4, "l0_coeff": 1e-4, "epochs": 40, "lr": 1e-2}
    result = training.run(settings | much)
    assert result.metrics["l0"] == pytest.approx(5.0, rel=tolerance)
    assert re.search(rf"wanted: 5\), found with --{coefficient} \d\.\d\de-0\d", result.advice[0])


@pytest.mark.parametrize("settings", [JUMPRELU, GATED], ids=lambda settings: settings["architecture"])
def test_at_the_same_l0_trained_thresholds_reconstruct_as_topk_does(
    training: Training, another: Training, settings: dict[str, Any]
) -> None:
    much = {"epochs": 40, "lr": 1e-2}
    topk = another.run(TOPK | much | {"k": 5})
    result = training.run(settings | much | {"target_l0": 5.0})
    assert result.metrics["l0"] == pytest.approx(5.0, rel=0.05)
    assert result.metrics["fvu"] < 1.4 * topk.metrics["fvu"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": None}, r"Which layer\? The data has layers \[1, 4\]"),
        ({"layer": 2}, "Layer 2 was not collected"),
        ({"architecture": "topk", "k": 25}, "k is 25, more than the 24 features"),
        ({"architecture": "topk", "k": 3, "target_l0": 50}, "The L0 of topk is its k"),
        ({"target_l0": 50}, "target_l0 is 50.0, not less than the 24 features"),
        ({"target_l0": 5, "l1_coeff": 0}, "l1_coeff from where it is: start with one above 0"),
        ({"architecture": "jumprelu", "target_l0": 5, "l0_coeff": 0}, "l0_coeff from where it is"),
        ({"architecture": "jumprelu", "k_start": 5}, "jumprelu has no k"),
        ({"architecture": "topk", "k": 3, "k_start": 25}, "k_start is 25, more than the 24 features"),
        ({"architecture": "topk", "k": 3, "k_start": 2}, "k_start is 2, less than k"),
        ({"architecture": "topk", "k": 3, "resample": [0.5]}, "AuxK revives features of topk"),
        ({"architecture": "gated", "decoder": "free"}, "The decoder of gated has rows of norm 1"),
        ({"architecture": "jumprelu", "decoder": "unit"}, "The recipe anthropic weighs its penalty"),
        ({"architecture": "jumprelu", "jumprelu_recipe": "gdm", "decoder": "free"}, "of jumprelu has rows of norm 1"),
        ({"validation": 0.95}, "too few to train on"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(
    training: Training, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        training.run(SMALL | changes)
    assert training.files() == {}


def test_default_sizes_and_name(training: Training) -> None:
    result = training.run({"layer": 1, "epochs": 1})
    assert result.name == "layer-001-relu-64"


def test_missing_and_incomplete_data_are_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data"))
    training = Training(store, store)
    with pytest.raises(ConfigError, match="No activations have been collected at"):
        training.run(TOPK)
    write_small(store)
    store.delete(keys.record(1, 2))
    with pytest.raises(ConfigError, match=r"Only 886 of 1,003 tokens are committed"):
        training.run(TOPK)
