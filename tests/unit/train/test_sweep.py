"""Several SAEs in one pass over the data: each is what it would be alone."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from interruptions import CrashError, at_call, crash, terminate
from kubesae.errors import ConfigError, IdentityError, Interrupted
from kubesae.sae import Normaliser
from kubesae.store import open_store
from kubesae.store.local import LocalStore
from kubesae.store.s3_wire import Wire
from kubesae.train import Limits, passes
from kubesae.train.checkpoint import Checkpoints
from kubesae.train.learner import Learner
from small_experiment import D_MODEL, VALUES
from small_sweep import EIGHT, kept, last
from small_training import BATCHTOPK, RELU, SMALL, TOPK, Training

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C = TOPK | {"name": "a"}, BATCHTOPK | {"name": "b", "seed": 3}, RELU | {"name": "c", "d_sae": 40}
# Its loss is finite until the rate has risen.
WILD = TOPK | {"name": "wild", "lr": 1e30, "lr_warmup": 0.9}


def alone(training: Training, several: list[dict[str, Any]]) -> dict[str, dict[Any, Any]]:
    """Train each SAE by itself; return what each ended with."""
    for settings in several:
        training.run(settings)
    files = training.files()
    return {settings["name"]: kept(files, settings["name"]) for settings in several}


def assert_equal(mine: dict[Any, Any], theirs: dict[Any, Any]) -> None:
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if mine[key] != theirs[key]] == []


def test_eight_in_one_pass_are_byte_for_byte_what_each_is_alone(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = [0]
    original = LocalStore.read_into

    def counting(store: LocalStore, key: str, start: int, buffer: memoryview) -> None:
        read[0] += len(buffer)
        original(store, key, start, buffer)

    monkeypatch.setattr(LocalStore, "read_into", counting)
    results = training.run_all(EIGHT)
    together, read[0] = read[0], 0
    assert [result.name for result in results.complete] == [settings["name"] for settings in EIGHT]
    assert results.diverged == {}
    another.run(EIGHT[-1])
    assert together <= 1.05 * read[0], "a matryoshka reads validation blocks twice, and so do all together"
    files, expected = training.files(), alone(another, EIGHT)
    for name, theirs in expected.items():
        assert_equal(kept(files, name), theirs)


@pytest.mark.s3
def test_eight_in_one_pass_take_from_a_server_what_one_takes(
    training: Training, another: Training, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    received, data = [0], open_store(f"{s3_bucket}/data")
    for key in training.data.list():
        data.put(key, training.data.read(key))

    def counting(original: Callable[..., Any]) -> Callable[..., Any]:
        def get(*arguments: Any) -> Any:
            result = original(*arguments)
            received[0] += result if isinstance(result, int) else len(result)
            return result

        return get

    for name in ("get", "get_into"):
        monkeypatch.setattr(Wire, name, counting(getattr(Wire, name)))
    Training(data, another.output).run(EIGHT[-1])
    one, received[0] = received[0], 0
    Training(data, training.output).run_all(EIGHT)
    assert one > VALUES["tokens"] * D_MODEL * 2 * SMALL["epochs"], "all rows, of two bytes a number, in every epoch"
    assert received[0] <= 1.05 * one


def test_seeds_of_weights_leave_the_order_alone_and_the_other_way_round(training: Training) -> None:
    a, b, c = (
        training.run(TOPK | {"epochs": 1, "name": name} | change).metrics
        for name, change in (("a", {}), ("b", {"seed": 5}), ("c", {"order_seed": 5}))
    )
    scale = {
        json.loads(training.output.read(f"sae/{name}/checkpoints/step-{m['step']:08d}/trainer.json"))["scale"]
        for name, m in (("a", a), ("b", b))
    }
    assert len(scale) == 1
    assert len({m["val_loss"] for m in (a, b, c)}) == 3


def test_the_lines_say_which_sae_they_are_about(training: Training) -> None:
    training.run_all([A | {"epochs": 1}, B | {"epochs": 1}])
    expected = [
        "Training 2 SAEs in one pass: a, b",
        "Found 6 activation chunks",
        "Total activations: 1,003",
        r"Train size: \d+",
        r"Val size: \d+",
        *(
            pattern
            for name in ("a", "b")
            for pattern in (f"Epoch 1, {name}:", "  Train - .*", "  Val   - .*", "  FVU: .*", "  ✓ New best model! .*")
        ),
        "a: L0 is .*",
    ]
    for line, pattern in zip(training.lines, expected, strict=False):
        assert re.fullmatch(pattern, line), (line, pattern)
    assert any(line.startswith("b: L0 is") for line in training.lines)


def test_other_orders_follow_in_passes_of_their_own(training: Training, another: Training) -> None:
    several = [A, B | {"epochs": 1}, C, A | {"name": "d", "order_seed": 4}]
    training.run_all(several)
    passes = [line for line in training.lines if line.startswith("Pass")]
    assert any(line == "Epoch 1, d:" for line in training.lines)
    assert passes == ["Pass 1 of 3: a, c", "Pass 2 of 3: b", "Pass 3 of 3: d"]
    files, expected = training.files(), alone(another, several)
    for name, theirs in expected.items():
        assert_equal(kept(files, name), theirs)


def test_what_all_need_is_done_once(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"fit": 0, "apply": 0, "step": 0}
    fit, apply = Normaliser.fit.__func__, Normaliser.apply

    def fitted(kind: Any, sample_SD: Any) -> Any:
        calls["fit"] += 1
        return fit(kind, sample_SD)

    def applied(self: Any, x_BD: Any) -> Any:
        calls["apply"] += 1
        return apply(self, x_BD)

    monkeypatch.setattr(Normaliser, "fit", classmethod(fitted))
    monkeypatch.setattr(Normaliser, "apply", applied)
    training.run(A)
    once = dict(calls)
    training.run_all([A | {"name": "x"}, A | {"name": "y", "seed": 1}, C])
    assert {name: calls[name] - once[name] for name in calls} == once


def test_one_that_diverges_leaves_the_others_alone(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_POINTS", 10)  # a line averages several steps, which its end must not cut
    results = training.run_all([A, WILD, B])
    assert [result.name for result in results.complete] == ["a", "b"]
    assert list(results.diverged) == ["wild"]
    assert sum("wild: Training diverged: at step" in line for line in training.lines) == 1
    message = r"(?s)1 of 3 SAEs diverged, the others are trained.*wild: Training diverged: at step \d+ the loss is"
    with pytest.raises(ConfigError, match=message):
        results.require_all()
    files, expected = training.files(), alone(another, [A, B])
    for name, theirs in expected.items():
        assert_equal(kept(files, name), theirs)
    again = training.run_all([A, WILD, B])
    assert again.complete == results.complete
    assert list(again.diverged) == ["wild"]


def test_one_that_diverges_alone_says_so_as_ever(training: Training) -> None:
    with pytest.raises(ConfigError, match=r"^Training diverged: at step \d+ the loss is"):
        training.run(WILD)


def test_a_finished_sae_takes_no_part(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    first = training.run(A)
    learned: list[str] = []
    original = Learner.step

    def step(self: Learner, *arguments: Any) -> Any:
        learned.append(self.settings.name)
        return original(self, *arguments)

    monkeypatch.setattr(Learner, "step", step)
    results = training.run_all([A, B])
    assert set(learned) == {"b"}
    assert results.complete[0] == first


@pytest.mark.parametrize("save", [3, 4, 8])
def test_a_crash_between_the_checkpoints_of_two(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch, save: int
) -> None:
    """Checkpoints at every step, a before b before c: after the third, a may be one step further than the others."""
    several, every = [A, B, C], Limits(interval=0.0)
    with monkeypatch.context() as patched:
        at_call(patched, Checkpoints, "write", save, crash)
        with pytest.raises(CrashError):
            training.run_all(several, every)
    places = {name: Checkpoints(training.output, name).steps()[-1:] for name in "abc"}
    training.run_all(several, every)
    resumed = [line for line in training.lines if "Resuming from step" in line]
    assert len(resumed) == sum(map(bool, places.values()))
    files, expected = training.files(), alone(another, several)
    for name, theirs in expected.items():
        assert_equal(last(kept(files, name)), last(theirs))


def test_a_signal_leaves_checkpoints_of_all(
    training: Training, another: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        at_call(patched, Learner, "step", 12, terminate)  # the third SAE's fourth step
        with pytest.raises(Interrupted, match="start again to go on from the checkpoints of step 4"):
            training.run_all([A, B, C])
    assert {Checkpoints(training.output, name).steps()[-1] for name in "abc"} == {4}
    training.run_all([A, B, C])
    files, expected = training.files(), alone(another, [A, B, C])
    for name, theirs in expected.items():
        assert_equal(last(kept(files, name)), last(theirs))


def test_no_checkpoints_are_begun_that_would_not_fit_the_grace_together(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, written = Checkpoints.write, threading.Semaphore(0)

    def slow(self: Checkpoints, snapshot: Any) -> None:
        original(self, snapshot)
        self.seconds = 4.0
        if snapshot.step == 14:
            written.release()

    monkeypatch.setattr(Checkpoints, "write", slow)
    at_call(monkeypatch, Learner, "step", 49, lambda: [written.acquire(timeout=30) for _ in "abc"])
    at_call(monkeypatch, Learner, "step", 50, terminate)  # in the second epoch
    with pytest.raises(Interrupted, match="go on from the checkpoints of step"):
        training.run_all([A, B, C])  # 12 seconds, where 10 are left
    steps = {Checkpoints(training.output, name).steps()[-1] for name in "abc"}
    assert steps == {14}


def test_a_name_with_other_settings_is_refused_before_anything_is_written(training: Training) -> None:
    training.run(B)
    files = training.files()
    with pytest.raises(IdentityError, match="The SAE 'b'"):
        training.run_all([A, B | {"lr": 1.0}])
    assert training.files() == files


def test_memory_that_runs_out_says_what_for(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubesae.errors import KubesaeError

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Learner, "step", full)
    message = r"Memory ran out for steps of 64 tokens on 2 SAEs of 64 features together \(.*\)\. Train fewer at a time"
    with pytest.raises(KubesaeError, match=message):
        training.run_all([A, C])
