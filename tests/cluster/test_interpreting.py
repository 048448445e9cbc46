"""Eight Pods that interpret together leave the bytes of one; one of them is killed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from faults import objects
from small_sae import write_sae
from tiny import SIZES

if TYPE_CHECKING:
    import random

    from faults import Objects
    from harness import Kube, Local
    from tiny import Run, Tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600, func_only=True)]

UNIT_TOKENS = 10_000  # six units of each shard
WORKERS = 8


def interpret(tiny: Tiny, undisturbed: Run, namespace: str, workers: int) -> Run:
    """Start interpreting an SAE of random directions."""
    output = tiny.store(namespace)
    write_sae(output, layer=3, d_model=SIZES["hidden_size"])
    experiment = {"data": undisturbed.store.url, "output": output.url, "interpret": {"unit_tokens": UNIT_TOKENS}}
    phases = {"interpret": {"workers": workers}}
    run = tiny.run(namespace, "interpret", prepared=False, experiment=experiment, phases=phases)
    run.install()
    return run


def left(run: Run) -> Objects:
    return {key: data for key, data in objects(run.store).items() if key.startswith("interpret/")}


def test_eight_pods_leave_the_bytes_of_one(
    kube: Kube, tiny: Tiny, undisturbed: Run, local: Local, namespace: str, moments: random.Random
) -> None:
    other = kube.namespace(f"alone-{secrets.token_hex(4)}")
    alone = interpret(tiny, undisturbed, other, 1)
    alone.wait_until_complete(timeout=300)
    expected = left(alone)
    assert len([key for key in expected if "/codes/" in key]) == 12
    kube.delete_namespace(other)
    run = interpret(tiny, undisturbed, namespace, WORKERS)
    kube.wait_for(
        "a unit is stored", lambda: run.store.list("interpret/small/units/"), timeout=300, namespace=namespace
    )
    running = [pod["metadata"]["name"] for pod in run.pods("interpret") if pod["status"]["phase"] == "Running"]
    assert running
    local.kill_container(moments.choice(running), namespace=namespace)
    run.wait_until_complete(timeout=400)
    assert (
        len({pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in run.pods("interpret")})
        == 8
    )
    assert left(run) == expected
