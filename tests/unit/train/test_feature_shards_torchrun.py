"""Features shared out over the processes of a real torchrun: the command, signals, and other layouts after them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from kubesae.evaluate import evaluate
from kubesae.ledger import keys
from kubesae.sae import load_sae
from kubesae.store import open_store
from kubesae.train.metrics import MetricsLog
from launched import Place
from small_experiment import VALUES, small_experiment
from small_training import BATCHTOPK, GATED, JUMPRELU, MATRYOSHKA, RELU, TOPK, Training

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

pytestmark = pytest.mark.timeout(300)
SIX = [
    settings | {"name": settings["architecture"], "epochs": 2, "dead_after": 300}
    for settings in (TOPK, BATCHTOPK, MATRYOSHKA, RELU, JUMPRELU, GATED)
]
EPOCHS = 15


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [*command, "-m", "kubesae.train", *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def experiment(small_data: Store, tmp_path: Path) -> Path:
    """Where an experiment of six SAEs is described, which are to lie in the folder `shards` beside it."""
    file = tmp_path / "experiment.yaml"
    output = str(tmp_path / "shards")
    file.write_text(yaml.safe_dump(VALUES | {"data": small_data.url, "output": output, "sae": SIX}))
    return file


@pytest.mark.slow
def test_the_command_trains_what_one_process_does(training: Training, experiment: Path) -> None:
    alone = training.run_all(SIX)
    done = torchrun(2, str(experiment), "--feature-shards", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Training 6 SAEs in one pass") == 1, "one rank prints"
    output = open_store(str(experiment.parent / "shards"))
    for one in alone.complete:
        sae = load_sae(f"{output.url}/sae/{one.name}")
        assert sae.config.d_sae == 24
        assert sae.weights.W_dec_FD.shape == (24, 8)
        assert sae.metadata["numerics"]["feature_shards"] == sae.metadata["numerics"]["ranks"] == 2
        for metric in ("val_loss", "l0", "fvu", "train_loss", "dead_share"):
            assert sae.metadata["metrics"][metric] == pytest.approx(one.metrics[metric], rel=0.01, abs=1e-6), one.name
        report = evaluate(small_experiment(training.data.url), training.data, output, one.name, 0)
        assert report.fvu == pytest.approx(one.metrics["fvu"], rel=0.02)


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_refused_before_anything_is_written(experiment: Path) -> None:
    for processes, shards, message in (
        (3, 2, "--feature-shards is 2, but there are 3 ranks. Start a multiple of 2 (torchrun --nproc_per_node=2)"),
        (5, 5, "The 24 features of topk cannot be shared out evenly over --feature-shards 5. Choose a number that"),
    ):
        done = torchrun(processes, str(experiment), "--feature-shards", str(shards))
        assert done.returncode != 0
        assert f"kubesae: {message}" in done.stderr
    assert not open_store(str(experiment.parent / "shards")).list("sae/")


@pytest.mark.slow
def test_sigterm_and_resume_at_this_layout_and_at_others(small_data: Store, tmp_path: Path) -> None:
    stopped, straight = (Place(tmp_path / name, small_data.url) for name in ("stopped", "straight"))
    for place in (stopped, straight):
        place.folder.mkdir()
    table = {"PET_NPROC_PER_NODE": "4"}
    try:
        first = stopped.launch("--feature-shards", "2", epochs=EPOCHS, **table)
        first.until("Epoch 2:")
        assert first.stop() == 75, first.output
        assert "Stopped by SIGTERM: start again to go on from the checkpoint of step" in first.output
        copies = {}
        for name, (processes, shards) in {"one": ("1", "1"), "rows": ("2", "1"), "features": ("2", "2")}.items():
            shutil.copytree(stopped.folder, tmp_path / name)
            copies[name] = Place(tmp_path / name, small_data.url)
            launch = copies[name].launch("--feature-shards", shards, epochs=EPOCHS, PET_NPROC_PER_NODE=processes)
            assert launch.wait() == 0, launch.output
            assert "Resuming from step" in launch.output
        for place in (stopped, straight):
            launch = place.launch("--feature-shards", "2", epochs=EPOCHS, **table)
            assert launch.wait() == 0, launch.output
    finally:
        for place in (stopped, straight):
            for launch in place.started:
                launch.end()
    assert tensors(stopped.output) == tensors(straight.output), "at the same layout bit for bit"
    wanted = curve(straight.output)
    assert curve(stopped.output) == wanted
    for name, place in copies.items():
        assert curve(place.output) == pytest.approx(wanted, rel=0.01), name


def tensors(output: Store) -> dict[str, bytes]:
    """Return the files of tensors of the last checkpoint."""
    best = json.loads(output.read(keys.best("small")))
    folders = sorted({key.rpartition("/")[0] for key in output.list(keys.checkpoints("small"))})
    assert folders[-1] >= f"{keys.sae_folder('small')}{best['checkpoint']}"
    return {key: output.read(key) for key in output.list(folders[-1] + "/") if key.endswith(".safetensors")}


def curve(output: Store) -> list[float]:
    """Return the training loss by step."""
    return [line["loss"] for line in MetricsLog(output, "small").read() if line["kind"] == "step"]
