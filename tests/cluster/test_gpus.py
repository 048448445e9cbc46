"""Slots of two GPUs on a node of eight, placed by the real scheduler: whole, or not at all."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from charts import PHASES, merged
from harness.node import GPUS
from harness.tiny_images import BUSYBOX
from releases import Release, write_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Kube, Local

GPU = "nvidia.com/gpu"
SLOT = 2
SLOTS = GPUS // SLOT
# In place of the program: works until it is told that it is done.
PROGRAM = """#!/bin/sh
trap 'exit 75' TERM
until [ -e /tmp/done ]; do sleep 0.2; done
"""
TAINT = "kubesae.test/other-node"  # nobody else's Pods go there
TOLERATIONS = [{"key": TAINT, "operator": "Exists"}]
VALUES: dict[str, Any] = {
    "experiment": {
        "data": "s3://no-such-bucket/data",
        "model": "organisation/model",
        "layers": [3],
        "corpora": [{"name": "web", "source": "organisation/corpus"}],
        "num_shards": SLOTS + 1,
    },
    "image": {"registry": "kubesae.test", "repository": "busybox", "tag": "1", "pullPolicy": "IfNotPresent"},
    "phases": {
        **{phase: {"enabled": phase == "collect"} for phase in PHASES},
        "all": {
            "scratch": "1Mi",
            "tolerations": TOLERATIONS,
            "extraEnv": [{"name": "PATH", "value": "/usr/local/bin:/bin"}],
            "extraVolumes": [{"name": "program", "configMap": {"name": "program", "defaultMode": 0o555}}],
            "extraVolumeMounts": [{"name": "program", "mountPath": "/usr/local/bin"}],
        },
    },
}
COLLECT = {
    "suspend": False,  # at once, by nobody's leave
    "gpus": SLOT,
    "sharedMemory": "",
    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
}


@pytest.fixture
def slots(kube: Kube, crd: None, namespace: str, tmp_path: Path) -> Release:
    """Give a release with a slot more than the node has room for, not yet installed."""
    program = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"}, "data": {"kubesae": PROGRAM}}
    kube.apply(program, namespace=namespace)
    values = merged(VALUES, {"phases": {"collect": COLLECT}})
    return Release(kube, namespace, "exp", [write_values(tmp_path / "my.yaml", values)])


@pytest.fixture
def other_node(kube: Kube) -> Iterator[str]:
    """Give a second node with two GPUs. It is nothing but an object, and ready for as long as nobody asks again."""
    name = f"other-{time.time_ns():x}"
    resources = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110", GPU: "2"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
    taints = [{"key": TAINT, "effect": "NoSchedule"}]
    kube.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints}})
    status = {"status": {"capacity": resources, "allocatable": resources, "conditions": [ready]}}
    kube.kubectl("patch", "node", name, "--subresource=status", "--type=merge", f"--patch={json.dumps(status)}")
    yield name
    kube.kubectl("delete", "node", name)


def take_one(kube: Kube, namespace: str, node: str) -> None:
    """Let a Pod take one GPU of a node, and wait until the scheduler has put it there."""
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "main", "image": BUSYBOX, "command": ["sleep", "600"], "securityContext": secure}
    spec = {
        "tolerations": TOLERATIONS,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _named(node)}},
        "containers": [{**container, "resources": {"limits": {GPU: "1"}}}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 0,
    }
    name = f"takes-one-of-{node}"
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, namespace=namespace)
    placed = lambda: kube.get("pod", name, namespace=namespace)["spec"].get("nodeName") == node  # noqa: E731
    kube.wait_for(f"a Pod has a GPU of {node}", placed, timeout=60, namespace=namespace)


def _named(node: str) -> dict[str, Any]:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {"nodeSelectorTerms": [{"matchFields": [field]}]}


def until_placed(release: Release, count: int) -> list[dict[str, Any]]:
    """Wait until so many slots run, all others waiting for GPUs; return those that run."""

    def placed() -> list[dict[str, Any]]:
        pods = [pod for pod in release.pods("collect") if pod["status"]["phase"] in ("Pending", "Running")]
        running = [pod for pod in pods if pod["status"]["phase"] == "Running"]
        waiting = [pod for pod in pods if "nodeName" not in pod["spec"] and waits_for_gpus(pod)]
        return running if len(running) == count and len(waiting) == len(pods) - count else []

    found: list[dict[str, Any]] = release.kube.wait_for(
        f"{count} slots run and the others wait", placed, timeout=120, namespace=release.namespace
    )
    return found


def waits_for_gpus(pod: dict[str, Any]) -> bool:
    conditions = {condition["type"]: condition for condition in pod["status"].get("conditions", ())}
    return f"Insufficient {GPU}" in conditions.get("PodScheduled", {}).get("message", "")


def gpus_of(pod: dict[str, Any]) -> int:
    return sum(int(container["resources"]["limits"].get(GPU, 0)) for container in pod["spec"]["containers"])


def names_of(pods: list[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def test_four_slots_fill_a_node_and_a_fifth_waits(slots: Release, local: Local) -> None:
    slots.install()
    running = until_placed(slots, SLOTS)
    assert [(pod["spec"]["nodeName"], gpus_of(pod)) for pod in running] == [(local.instance.name, SLOT)] * SLOTS
    assert len(slots.pods("collect")) == SLOTS + 1
    first = min(names_of(running))
    slots.kube.kubectl("exec", first, f"--namespace={slots.namespace}", "--", "touch", "/tmp/done")
    (waiting,) = {pod["metadata"]["name"] for pod in slots.pods("collect")} - names_of(running)
    placed = lambda: waiting in names_of(until_placed(slots, SLOTS))  # noqa: E731
    slots.kube.wait_for("the fifth has its GPUs", placed, timeout=60, namespace=slots.namespace)


def test_no_slot_gets_a_gpu_here_and_one_there(slots: Release, local: Local, other_node: str) -> None:
    """One GPU is left on each of two nodes: enough in sum for a slot, and none is placed."""
    for node in (local.instance.name, other_node):
        take_one(slots.kube, slots.namespace, node)
    slots.install()
    running = until_placed(slots, SLOTS - 1)
    assert {pod["spec"]["nodeName"] for pod in running} == {local.instance.name}
    time.sleep(3)  # the scheduler has had another look by now
    assert len(until_placed(slots, SLOTS - 1)) == SLOTS - 1
