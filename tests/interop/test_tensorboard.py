"""Unmodified TensorBoard reads our event files: every number at every step, after interruptions too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interruptions import CrashError, at_call, crash
from kubesae.store import open_store
from kubesae.train import Limits
from kubesae.train.checkpoint import Checkpoints
from kubesae.train.metrics import MetricsLog
from small_experiment import write_small
from small_training import RELU, TOPK, Training

ROOT = Path(__file__).parents[2]
MAKE = "from bench.support.environment import python_of; print(python_of('tensorboard'))"
# What TensorBoard itself reads, with its own classes, before it draws.
READ = """
import json, sys
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
multiplexer = EventMultiplexer(size_guidance={"scalars": 0, "tensors": 0}).AddRunsFromDirectory(sys.argv[1])
multiplexer.Reload()
found = {}
for run in multiplexer.Runs():
    accumulator = multiplexer.GetAccumulator(run)
    for tag in accumulator.Tags()["tensors"]:
        found[f"{run} {tag}"] = [(e.step, float(e.tensor_proto.float_val[0])) for e in accumulator.Tensors(tag)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python() -> str:
    """Give the interpreter of an environment of its own that has tensorboard."""
    environment = os.environ | {"PYTHONPATH": "jobs:tests/support"}  # as `make bench` has it
    command = [sys.executable, "-c", MAKE]
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"tensorboard cannot be installed: {made.stderr[-300:]}")
    return made.stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_shows_what_was_logged(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, output = open_store(str(tmp_path / "data")), open_store(str(tmp_path / "output"))
    write_small(data)
    training = Training(data, output)
    several = [TOPK | {"name": "a"}, RELU | {"name": "b"}]
    for save in (5, 9):  # between the checkpoints of the two, and after the second's
        with monkeypatch.context() as patched:
            at_call(patched, Checkpoints, "write", save, crash)
            with pytest.raises(CrashError):
                training.run_all(several, Limits(interval=0.0))
    training.run_all(several)
    command = [python, "-c", READ, str(tmp_path / "output" / "sae")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected: dict[str, list[tuple[int, float]]] = {}
    for name in ("a", "b"):
        for line in MetricsLog(output, name).read():
            kind = "train" if line["kind"] == "step" else "validation"
            for field in line.keys() - {"kind", "step", "epoch"}:
                expected.setdefault(f"{name}/tensorboard {kind}/{field}", []).append((line["step"], line[field]))
    assert found.keys() == expected.keys()
    for tag, series in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in series], tag
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in series], rel=1e-6), tag
