"""The cluster is lost, and a new one goes on from the bucket, which has all that an experiment has to remember."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from faults import objects
from harness.images import load_images
from releases import give_credentials, install_operator
from tiny import PARTS

if TYPE_CHECKING:
    import random

    from faults import Faults
    from harness import Kube, Local
    from tiny import Run, Tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900, func_only=True)]

MOST_SECONDS = 120
PHASES = ("prepare", "pilot", "collect")


def test_a_new_cluster_goes_on(
    local: Local,
    kube: Kube,
    tiny: Tiny,
    undisturbed: Run,
    images: dict[str, dict[str, str]],
    namespace: str,
    moments: random.Random,
    faults: Faults,
) -> None:
    run = tiny.run(namespace, *PHASES)
    run.install()
    share = moments.uniform(0.2, 0.6)
    kube.wait_for(
        f"{share:.0%} are committed", lambda: run.committed >= share * PARTS, timeout=300, namespace=namespace
    )
    assert run.pods("pilot")
    local.replace()
    lost_at = run.committed
    assert lost_at < PARTS
    faults.count("loss of the cluster")
    load_images(local)
    kube.namespace(namespace)
    give_credentials(kube, namespace)
    began = time.monotonic()
    install_operator(kube, images["operator"])
    run.install()
    kube.wait_for("a part more", lambda: run.committed > lost_at, timeout=MOST_SECONDS, namespace=namespace)
    took = time.monotonic() - began
    print(f"lost at {lost_at} of {PARTS} parts; the next one {took:.0f} s after `helm install`")  # noqa: T201
    assert took <= MOST_SECONDS
    run.wait_until_complete(timeout=400)
    assert {phase: run.pods(phase) for phase in ("prepare", "pilot")} == {"prepare": [], "pilot": []}
    expected = objects(undisturbed.store)
    pilot = {key: run.store.read(key) for key in run.store.list("verify/")}
    assert list(pilot) == ["verify/pilot.json"]
    assert faults.compare(run.store, expected | pilot) == []
