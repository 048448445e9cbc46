"""Stopped anywhere and started again, a training ends with the same bits as one that was never stopped."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

import pytest

from interruptions import CrashError, at_call, crash, terminate
from kubesae.errors import AccessError, Interrupted
from kubesae.sae import load_sae
from kubesae.train import Limits
from kubesae.train.checkpoint import Checkpoints, Snapshot
from kubesae.train.learner import Learner
from small_training import BATCHTOPK, GATED, JUMPRELU, MATRYOSHKA, RELU, TOPK, Training

NAMES = {name: f"layer-004-{name}-24" for name in ("topk", "batchtopk", "matryoshka", "relu", "jumprelu", "gated")}
# weights, optimiser and counters, the exported SAE, the pointer
EXACT = (".safetensors", "best.json", "metadata.json")


def comparable(training: Training) -> dict[str, Any]:
    """All that must agree: exact files of checkpoints that both have, and metrics without speeds."""
    files = {key: data for key, data in training.files().items() if key.endswith(EXACT)}
    lines = {}
    for data in training.files(".jsonl").values():
        for text in data.splitlines():
            line = json.loads(text)
            lines[line["kind"], line["step"]] = {
                name: value for name, value in line.items() if name not in {"tokens_per_second", "data_wait_share"}
            }
    return {"files": files, "lines": lines}


@pytest.mark.parametrize("architecture", NAMES)
@pytest.mark.parametrize("step", [1, 7, 13, 14, 20])
def test_sigterm_checkpoints_and_resumes_exactly(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch, architecture: str, step: int
) -> None:
    settings = {
        "topk": TOPK,
        "batchtopk": BATCHTOPK | {"k_start": 12, "k_anneal": 0.5, "lr_decay_shape": "cosine"},
        "matryoshka": MATRYOSHKA,
        "relu": RELU | {"target_l0": 6.0},
        "jumprelu": JUMPRELU | {"target_l0": 6.0},
        "gated": GATED | {"target_l0": 6.0, "dead_after": 200, "resample": [0.4, 0.8]},
    }[architecture]
    straight = another.run(settings)
    with monkeypatch.context() as patched:
        at_call(patched, Learner, "step", step, terminate)
        with pytest.raises(
            Interrupted, match=f"Stopped by SIGTERM: start again to go on from the checkpoint of step {step}"
        ):
            training.run(settings)
    assert Checkpoints(training.output, NAMES[architecture]).steps()[-1] == step
    resumed = training.run(settings)
    assert any(line.startswith(f"Resuming from step {step} of ") for line in training.lines)
    assert resumed == straight
    last = f"step-{straight.metrics['step']:08d}/"
    mine, theirs = comparable(training), comparable(another)
    assert mine["lines"] == theirs["lines"]
    compared = [key for key in theirs["files"] if last in key or key.endswith("best.json")]
    assert len(compared) == 4
    for key in compared:
        assert mine["files"][key] == theirs["files"][key], key


@pytest.mark.parametrize("step", [3, 16])
def test_a_crash_resumes_from_the_last_periodic_checkpoint(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    straight = another.run(TOPK)
    saved = []
    with monkeypatch.context() as patched:
        at_call(patched, Checkpoints, "write", 1, lambda: saved.append(True))
        at_call(patched, Learner, "step", step, crash)
        with pytest.raises(CrashError):
            training.run(TOPK, Limits(interval=0.0))
    assert saved
    assert training.run(TOPK) == straight
    assert comparable(training)["lines"] == comparable(another)["lines"]
    assert training.files("best.json") == another.files("best.json")


def test_a_signal_during_validation_repeats_only_the_validation(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = another.run(TOPK)
    with monkeypatch.context() as patched:
        at_call(patched, Learner, "evaluate", 1, terminate)
        with pytest.raises(Interrupted):
            training.run(TOPK)
    steps: list[int] = []
    at_call(monkeypatch, Learner, "step", 1, lambda: steps.append(1))
    assert Checkpoints(training.output, NAMES["topk"]).newest().progress.epoch == 0
    assert training.run(TOPK) == straight
    assert comparable(training)["lines"] == comparable(another)["lines"]


def test_a_crash_before_the_pointer_is_mended_on_the_next_start(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    another.run(TOPK)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "point_at", lambda *_: crash())
        with pytest.raises(CrashError):
            training.run(TOPK | {"epochs": 1})
    assert training.files("best.json") == {}
    result = training.run(TOPK | {"epochs": 1})
    assert load_sae(f"{training.output.url}/sae/{result.name}").metadata["step"] == result.metrics["step"]


def test_no_checkpoint_is_begun_that_would_not_fit_the_grace_period(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()

    def slow(self: Checkpoints, *args: Any) -> None:
        original(self, *args)
        self.seconds = 60.0
        written.set()

    original = Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", slow)
    at_call(monkeypatch, Learner, "step", 19, lambda: written.wait(30))
    at_call(monkeypatch, Learner, "step", 20, terminate)
    with pytest.raises(Interrupted, match="go on from the checkpoint of step"):
        training.run(TOPK)
    assert 20 not in Checkpoints(training.output, NAMES["topk"]).steps()


def test_training_goes_on_while_a_checkpoint_is_written(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = another.run(TOPK)
    ten_steps, begun = threading.Event(), []

    def slow(self: Checkpoints, snapshot: Snapshot) -> None:
        if not begun:
            begun.append(snapshot.step)
            assert ten_steps.wait(30)
        original(self, snapshot)

    original = Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", slow)
    at_call(monkeypatch, Learner, "step", 11, ten_steps.set)
    assert training.run(TOPK, Limits(interval=0.0)) == straight
    assert begun == [1]
    assert comparable(training)["lines"] == comparable(another)["lines"]
    assert training.files("best.json") == another.files("best.json")


def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_self: Checkpoints, _snapshot: Snapshot) -> None:
        raise AccessError("The store refuses to write.")

    monkeypatch.setattr(Checkpoints, "write", refused)
    with pytest.raises(AccessError, match="refuses to write"):
        training.run(TOPK)
    assert training.files("report.html") == {}


def test_what_goes_wrong_after_a_checkpoint_was_begun_does_not_lose_it(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepping = threading.Event()

    def slow(self: Checkpoints, snapshot: Snapshot) -> None:
        assert stepping.wait(30)
        original(self, snapshot)

    def fail() -> None:
        stepping.set()
        crash()

    original = Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", slow)
    at_call(monkeypatch, Learner, "step", 2, fail)
    with pytest.raises(CrashError):
        training.run(TOPK, Limits(interval=0.0))
    assert Checkpoints(training.output, NAMES["topk"]).steps() == [1]


def test_signal_handlers_are_put_back(training: Training) -> None:
    before = signal.getsignal(signal.SIGTERM)
    training.run(TOPK | {"epochs": 1})
    assert signal.getsignal(signal.SIGTERM) is before
