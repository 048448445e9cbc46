"""SIGKILL of a training of several SAEs in one pass: started again, each ends with the bytes of its undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from fault_experiment import VALUES, write_experiment
from faults import objects
from kubesae.ledger import keys
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_experiment import Scene
    from fault_workers import Workers
    from faults import Objects

pytestmark = pytest.mark.fault

_FIRST: dict[str, Any] = VALUES["sae"][0] | {"epochs": 1}
SEVERAL = [
    _FIRST,
    _FIRST | {"name": "sparse", "architecture": "topk", "k": 4, "seed": 3},
    _FIRST | {"name": "wide", "architecture": "batchtopk", "k": 4, "d_sae": 96, "lr": 1e-3},
]
# Three SAEs pass each point in turn: after the second checkpoint of a step, say, two are a step ahead of the third.
POINTS = {
    "step": (28, 2, 40),
    "after metrics": (8, 1, 2),
    "in trainer tensors": (5, 3, 10),
    "after checkpoint": (7, 2, 10),
    "deletion": (17, 1, 3),
    "before pointer": (2, 1, 2),
    "after pointer": (2, 1),
    "before report": (2, 1, 3),
}


@pytest.fixture(scope="module")
def train_undisturbed(
    workers: Workers,
    inputs: Path,
    undisturbed: Callable[..., dict[str, Objects]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Objects]:
    """Give what trains SAEs while nothing happens, and returns what they leave."""

    def train(*saes: dict[str, Any]) -> Objects:
        folder = tmp_path_factory.mktemp("sweep")
        output = str(folder / "output")
        file = write_experiment(folder / "e.yaml", inputs, undisturbed()["data"], output=output, sae=list(saes))  # type: ignore[arg-type]
        worker = workers.start("train", file)
        assert worker.wait(100) == 0, worker.output
        return objects(open_store(output))

    return train


@pytest.fixture(scope="module")
def together(train_undisturbed: Callable[..., Objects]) -> Objects:
    """Give what all leave of one pass."""
    return train_undisturbed(*SEVERAL)


def test_each_leaves_what_it_leaves_alone(
    scene: Callable[..., Scene], tmp_path: Path, together: Objects, train_undisturbed: Callable[..., Objects]
) -> None:
    train = scene("train", str(tmp_path / "none"))
    train.expected = {}
    for sae in SEVERAL:
        train.expected |= train_undisturbed(sae)
    for key, data in together.items():
        train.store.put(key, data)
    for key in (keys.SWEEP, keys.SWEEP_PAGE):  # these are about all that are there
        del train.expected[key]
        train.store.delete(key)
    assert train.compare() == []


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_point(scene: Callable[..., Scene], prefix: str, together: Objects, point: str) -> None:
    train = scene("train", prefix, sae=SEVERAL)
    train.expected = together
    for passage in POINTS[point]:
        train.kill_at(point, passage)
    train.finish()
    assert train.compare() == []


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_a_kill_at_any_time(scene: Callable[..., Scene], prefix: str, together: Objects, seed: int) -> None:
    train, moments = scene("train", prefix, sae=SEVERAL), random.Random(seed)
    train.expected = together
    for _ in range(3):
        worker = train.start(pause=0.01)
        worker.until_working()
        time.sleep(moments.uniform(0, 0.5))
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        train.faults.count("train: SIGKILL of a sweep at random")
    train.finish()
    assert train.compare() == []
