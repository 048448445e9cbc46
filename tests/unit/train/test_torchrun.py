"""Two processes under torchrun end where one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.sae import load_sae
from small_sweep import EIGHT, kept
from small_training import TOPK, Training

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys
from kubesae.experiment import Sae
from kubesae.store import open_store
from kubesae.train import Console, run_training

data, output, settings = sys.argv[1:]
run_training(open_store(data), open_store(output), Sae.model_validate_json(settings), chunk=200, console=Console(print))
"""


def test_two_processes_train_what_one_does(training: Training, tmp_path: Path) -> None:
    from kubesae.experiment import Sae

    alone = training.run(TOPK)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    output = str(tmp_path / "two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    settings = Sae(**TOPK).model_dump_json()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, training.data.url, output, settings], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    losses = [line for line in done.stdout.splitlines() if "Val   - Loss" in line]
    expected = [line for line in training.lines if "Val   - Loss" in line]
    assert len(losses) == 3, "one rank prints"
    for mine, wanted in zip(losses, expected, strict=True):
        loss, wanted_loss = (float(line.split("Loss: ")[1].split(",")[0]) for line in (mine, wanted))
        assert loss == pytest.approx(wanted_loss, rel=1e-3)
    both = load_sae(f"{output}/sae/{alone.name}"), load_sae(f"{training.output.url}/sae/{alone.name}")
    assert both[0].metadata["numerics"]["ranks"] == 2
    torch.testing.assert_close(both[0].weights.W_dec_FD, both[1].weights.W_dec_FD, rtol=0.05, atol=0.01)


def test_a_rank_whose_others_do_not_come_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from kubesae.errors import KubesaeError
    from kubesae.train import distributed

    monkeypatch.setattr(distributed, "_JOINING", timedelta(seconds=1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(
            KubesaeError, match=r"The 2 ranks of this training have not met within 0:00:01 \(.*\)\. Start again"
        ),
        distributed.join_ranks("cpu"),
    ):
        pytest.fail("nobody else is there")


ALL_AND_EACH = """
import contextlib
import sys
from kubesae.experiment import Sae
from kubesae.store import open_store
from kubesae.train import Console, distributed, run
from small_sweep import EIGHT

data, output = open_store(sys.argv[1]), open_store(sys.argv[2])
several = [Sae(**settings) for settings in EIGHT]
with distributed.join_ranks() as ranks:
    run.join_ranks = lambda *_: contextlib.nullcontext(ranks)  # torchrun's processes meet once
    for place, saes in (("all", several), *(("each", [sae]) for sae in several)):
        run.run_trainings(data, output.child(place), saes, chunk=200, console=Console(print))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_on_two_ranks_in_one_pass_are_what_each_is_alone_on_two(training: Training, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ALL_AND_EACH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, training.data.url, training.output.url], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    both = [
        {key: place.read(key) for key in place.list()}
        for place in (training.output.child("all"), training.output.child("each"))
    ]
    for settings in EIGHT:
        mine, theirs = (kept(files, settings["name"]) for files in both)
        assert any(str(key).endswith("sae.safetensors") for key in theirs)
        assert mine == theirs
