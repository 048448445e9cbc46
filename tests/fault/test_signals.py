"""Signals at any time: seeded random kills, SIGTERM, SIGINT, and a stopped writer that wakes up after another one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fault_experiment import PARTS
from fault_worker import Fault
from faults import objects
from kubesae.ledger import keys, record_list

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fault_experiment import Scene
    from fault_workers import Worker
    from faults import Objects

pytestmark = pytest.mark.fault

INTERRUPTED = 75
GRACE = 10.0
# Of each program: seconds that a step of it takes longer here, and within how many seconds of its work we strike.
PROGRAMS = {"collect": (0.01, 0.3), "prepare": (0.1, 0.12), "train": (0.01, 0.3)}
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))]
OTHER = ("--forward-batch", "5")  # what a machine of another kind runs with


def strikes(scene: Scene, number: int, moments: random.Random) -> Iterator[Worker]:
    """Start the program three times, send it the signal some time after work began; give those that it ended."""
    program = scene.program[0]
    pause, window = PROGRAMS[program]
    struck = 0
    for _ in range(3):
        worker = scene.start(pause=pause)
        worker.until_working()
        time.sleep(moments.uniform(0, window))
        began = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, number)
        if worker.wait() == 0:
            break
        assert time.monotonic() - began < GRACE
        assert scene.in_progress
        scene.faults.count(f"{program}: {signal.Signals(number).name} at random")
        struck += 1
        yield worker
    assert struck


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_at_any_time(scene: Callable[..., Scene], prefix: str, program: str, seed: int) -> None:
    killed = scene(program, prefix)
    for worker in strikes(killed, signal.SIGKILL, random.Random(seed)):
        assert worker.wait() == -signal.SIGKILL
    killed.finish()
    assert killed.compare() == []


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_ends_with_75(scene: Callable[..., Scene], prefix: str, program: str, number: int) -> None:
    stopped = scene(program, prefix)
    for worker in strikes(stopped, number, random.Random(number)):
        assert worker.wait() == INTERRUPTED, worker.output
        assert "start again to go on" in worker.output
        assert "Traceback" not in worker.output
    stopped.finish()
    assert stopped.compare() == []


@pytest.mark.parametrize("point", ["in forward", "after tar of layer 1", "before record", "in record", "after record"])
def test_a_writer_wakes_up_after_another_has_done_its_work(
    scene: Callable[..., Scene], prefix: str, point: str
) -> None:
    collect = scene("collect", prefix)
    sleeper = collect.start(fault=Fault(point, 3, "stop"))
    sleeper.until_stopped()
    assert collect.in_progress
    collect.finish()
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait() == 0, sleeper.output
    collect.faults.count("collect: stopped, another writer meanwhile")
    assert "other bytes" not in sleeper.output
    assert collect.compare() == []


@pytest.mark.parametrize("point", [("in forward", 17), ("after tar of layer 1", 3), ("before record", 3)])
def test_a_writer_of_another_numerics_class_does_not_take_back_what_was_committed(
    scene: Callable[..., Scene], undisturbed: Callable[..., dict[str, Objects]], prefix: str, point: tuple[str, int]
) -> None:
    collect = scene("collect", prefix)
    sleeper = collect.start(fault=Fault(*point, "stop"))
    sleeper.until_stopped()
    mine = record_list(collect.store)
    assert 0 < len(mine) < PARTS // 2  # of the first shard
    collect.finish(*OTHER, other_device=True)
    before = objects(collect.store)
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait() == 0, sleeper.output
    collect.faults.count("collect: stopped, another numerics class meanwhile")
    after = objects(collect.store)
    assert {key: after[key] for key in before} == before
    orphans = after.keys() - before.keys()
    assert orphans
    assert all(keys.parse_record(key) is None for key in orphans)
    assert sleeper.output.count("committed by another attempt with other bytes") == PARTS // 2 - len(mine)
    assert collect.compare(undisturbed(*OTHER, other_device=True)["collect"]) == []
    full = collect.workers.start("verify", collect.file, "--mode", "full")
    assert full.wait() == 0, full.output


@pytest.mark.parametrize("other_device", [False, True])
def test_two_writers_of_the_same_shards_at_once(
    scene: Callable[..., Scene], undisturbed: Callable[..., dict[str, Objects]], prefix: str, *, other_device: bool
) -> None:
    collect = scene("collect", prefix)
    options = OTHER if other_device else ()
    pair = [collect.start(pause=0.01), collect.start(*options, pause=0.01, other_device=other_device)]
    for worker in pair:
        assert worker.wait() == 0, worker.output
        assert "after record" in worker.passages
    collect.faults.count("collect: two writers at once")
    assert collect.compare(undisturbed(*options, other_device=other_device)["collect"]) == []
