"""A training's Pod is killed midway: the next one goes on from the checkpoint, under both back-ends, to equal curves.

Each trains on the data of the undisturbed collection, which it only reads, and writes to a prefix of its own.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from faults import objects
from kubesae.ledger import checkpoint_steps, keys

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from faults import Faults, Objects
    from harness import Kube, Local
    from tiny import Run, Tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600, func_only=True)]

BACKENDS = ("job", "pytorchjob")
EPOCHS = 6
SAE: dict[str, Any] = {
    "name": "small",
    "layer": 3,
    "architecture": "topk",
    "k": 8,
    "d_sae": 2048,
    "batch_size": 512,
    "epochs": EPOCHS,
    "lr": 3e-3,
}


@pytest.fixture(scope="module")
def train(kube: Kube, tiny: Tiny, undisturbed: Run) -> Callable[..., Run]:
    """Give what starts a training in a namespace; further arguments are values of its phase."""

    def start(namespace: str, backend: str, **settings: Any) -> Run:
        output = tiny.store(namespace)
        experiment = {"data": undisturbed.store.url, "output": output.url, "sae": [SAE]}
        memory = {"limits": {"memory": "3Gi"}}  # all rows of a shard, and torch, for each Pod
        phases = {"train": {"backend": backend, "resources": memory, **settings}}
        run = tiny.run(namespace, "train", prepared=False, experiment=experiment, phases=phases)
        run.install()
        return run

    return start


@pytest.fixture(scope="module")
def expected(kube: Kube, train: Callable[..., Run]) -> Objects:
    """Give what a training leaves to which nothing happens."""
    namespace = kube.namespace(f"undisturbed-{secrets.token_hex(4)}")
    run = train(namespace, "job")
    run.wait_until_complete(timeout=400)
    left = objects(run.store)
    run.uninstall()
    kube.delete_namespace(namespace)
    return left


def metrics(run: Run) -> Objects:
    """Return the objects with a training's metrics."""
    return {key: run.store.read(key) for key in run.store.list(f"{keys.sae_folder(SAE['name'])}metrics/")}


def curve(found: Objects) -> list[dict[str, Any]]:
    """Return the line of metrics of each epoch, in order."""
    segments = [data for key, data in sorted(found.items()) if "/metrics/" in key]
    lines = [json.loads(line) for data in segments for line in data.splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


def kill_midway(run: Run, local: Local, moments: random.Random) -> int:
    """Kill the container of a Pod after a random epoch; return the step of the newest checkpoint."""
    namespace = run.namespace
    epochs = moments.randint(1, EPOCHS - 3)
    run.kube.wait_for(
        f"{epochs} epochs have ended", lambda: len(curve(metrics(run))) >= epochs, timeout=300, namespace=namespace
    )
    time.sleep(moments.uniform(0, 2))
    running = [pod["metadata"]["name"] for pod in run.pods("train") if pod["status"]["phase"] == "Running"]
    local.kill_container(moments.choice(running), namespace=namespace)
    steps = checkpoint_steps(run.store.list(keys.checkpoints(SAE["name"])))
    print(f"killed one of {len(running)} after {epochs} epochs; the newest checkpoint is of step {steps[-1]}")  # noqa: T201
    return steps[-1]


def log_of(run: Run) -> str:
    """Return what the newest Pod has written."""
    newest = max(run.pods("train"), key=lambda pod: pod["metadata"]["creationTimestamp"])
    return run.kube.logs(newest["metadata"]["name"], namespace=run.namespace)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_training_goes_on_from_its_checkpoint(
    train: Callable[..., Run],
    local: Local,
    namespace: str,
    moments: random.Random,
    faults: Faults,
    expected: Objects,
    backend: str,
) -> None:
    run = train(namespace, backend)
    step = kill_midway(run, local, moments)
    faults.count(f"SIGKILL of a training ({backend})")
    run.wait_until_complete(timeout=400)
    assert f"Resuming from step {step:,} of " in log_of(run)
    assert faults.compare_training(run.store, expected) == []
    assert len(curve(metrics(run))) == EPOCHS


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_workers_find_each_other_again(
    train: Callable[..., Run],
    local: Local,
    namespace: str,
    moments: random.Random,
    faults: Faults,
    expected: Objects,
    backend: str,
) -> None:
    run = train(namespace, backend, workers=2)
    kill_midway(run, local, moments)
    faults.count(f"SIGKILL of one of two workers ({backend})")
    run.wait_until_complete(timeout=500)
    ours, theirs = curve(metrics(run)), curve(expected)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    # the same rows in the same order; what two processes add up has other last bits, and training carries them on
    assert [line["fvu"] for line in ours] == pytest.approx([line["fvu"] for line in theirs], rel=0.05)
