"""A cluster's faults strike a collection at random moments: it ends with an undisturbed one's bytes, nothing doubled.

KUBESAE_SEED, which the session's last lines show, repeats the moments.
"""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from faults import objects
from kubesae.errors import EXIT_INTERRUPTED
from releases import OPERATOR_NAMESPACE
from tiny import PARTS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from faults import Faults, Objects
    from harness import Kube, Local
    from tiny import Run, Tiny

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600, func_only=True)]

KILLED = 128 + signal.SIGKILL
SOME = 30
"""parts that take a Pod some seconds"""

COUNTED = ("container SIGKILL", "OOM kill")
"""faults after which the Job counts a failure of the Pod"""


@dataclass
class Collection:
    """A collection in Pods, and what can be done to it. Any of its Pods may be hit."""

    kube: Kube
    local: Local
    run: Run
    moments: random.Random

    def until(self, share: float) -> None:
        """Wait until that share of the parts is committed."""
        self.kube.wait_for(
            f"{share:.0%} are committed",
            lambda: self.run.committed >= share * PARTS,
            timeout=300,
            namespace=self.run.namespace,
        )

    def victim(self) -> str:
        """Return the name of a Pod that is at work, and will be for some seconds more."""

        def at_work() -> list[str]:
            found = [pod for pod in self.run.pods("collect") if "deletionTimestamp" not in pod["metadata"]]
            running = [pod for pod in found if _runs(pod)]  # the Pod's phase comes later
            return sorted(pod["metadata"]["name"] for pod in running if self.run.left(int(_index(pod))) >= SOME)

        names = self.kube.wait_for("a Pod is at work", at_work, timeout=120, namespace=self.run.namespace)
        return self.moments.choice(names)

    @property
    def job(self) -> dict[str, Any]:
        """The status of the Job that collects."""
        (job,) = self.run.jobs("collect")
        return job["status"]

    def until_gone(self, pod: str) -> None:
        """Wait until a Pod that was told to go is gone."""
        self.kube.wait_for(f"{pod} is gone", lambda: not self.pod(pod), timeout=60, namespace=self.run.namespace)

    def pod(self, name: str) -> Any:
        return self.kube.get("pod", name, namespace=self.run.namespace)

    def until_ended(self, pod: str) -> dict[str, Any]:
        """Wait until a Pod's container has ended; return how."""

        def end() -> Any:
            return self.pod(pod)["status"]["containerStatuses"][0]["state"].get("terminated")

        found: dict[str, Any] = self.kube.wait_for(f"{pod} ends", end, timeout=60, namespace=self.run.namespace)
        return found


def _runs(pod: dict[str, Any]) -> bool:
    return any("running" in container["state"] for container in pod["status"].get("containerStatuses", ()))


def _index(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def kill(collection: Collection) -> None:
    pod = collection.victim()
    collection.local.kill_container(pod, namespace=collection.run.namespace)
    assert collection.until_ended(pod)["exitCode"] == KILLED


def interrupt(collection: Collection) -> None:
    """The Pod ends early, with 75, and its index is not done."""
    pod = collection.victim()
    index = _index(collection.pod(pod))
    collection.local.kill_container(pod, namespace=collection.run.namespace, number=signal.SIGTERM)
    assert collection.until_ended(pod)["exitCode"] == EXIT_INTERRUPTED

    def replaced() -> bool:
        found = collection.run.pods("collect")
        return any(one["metadata"]["name"] != pod and f"-{index}-" in one["metadata"]["name"] for one in found)

    collection.kube.wait_for("another Pod goes on", replaced, timeout=60, namespace=collection.run.namespace)
    assert index not in collection.job.get("completedIndexes", "").split(",")


def evict(collection: Collection) -> None:
    pod, namespace = collection.victim(), collection.run.namespace
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    collection.kube.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
    collection.until_gone(pod)


def delete(collection: Collection) -> None:
    pod = collection.victim()
    collection.kube.kubectl("delete", "pod", pod, f"--namespace={collection.run.namespace}")
    collection.until_gone(pod)


def drain(collection: Collection) -> None:
    """Of the node's Pods only the experiments': for the others, which a budget protects, there is no other node."""
    node = collection.pod(collection.victim())["spec"]["nodeName"]
    which = ["--pod-selector=kubesae.dev/experiment", "--delete-emptydir-data", "--ignore-daemonsets"]
    try:
        collection.kube.kubectl("drain", node, *which, "--timeout=60s")
        time.sleep(collection.moments.uniform(0, 5))
        assert all(pod["status"]["phase"] == "Pending" for pod in collection.run.pods("collect"))
    finally:
        collection.kube.kubectl("uncordon", node)


def run_out_of_memory(collection: Collection) -> None:
    """Fill the Pod's shared memory, which counts as the container's: the kernel kills its largest process."""
    pod, namespace = collection.victim(), f"--namespace={collection.run.namespace}"
    fill = "head -c 2G /dev/zero >/dev/shm/filled"
    collection.kube.kubectl("exec", pod, namespace, "--", "sh", "-c", fill, check=False)
    ended = collection.until_ended(pod)
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", KILLED)


def restart_s3_server(collection: Collection) -> None:
    _restart(collection, "s3")


def restart_api_server(collection: Collection) -> None:
    _restart(collection, "kube-apiserver")


def _restart(collection: Collection, component: str) -> None:
    collection.local.components.stop(component, signal.SIGKILL)
    time.sleep(collection.moments.uniform(0, 5))
    collection.local.components.start_again(component)


def kill_operator(collection: Collection) -> None:
    """Both replicas, the leader and the one that would take over."""
    names = [pod["metadata"]["name"] for pod in collection.kube.get("pods", namespace=OPERATOR_NAMESPACE)]
    for name in names:
        collection.local.kill_container(name, namespace=OPERATOR_NAMESPACE)

    def restarted() -> bool:
        pods = collection.kube.get("pods", namespace=OPERATOR_NAMESPACE)
        states = [pod["status"]["containerStatuses"][0] for pod in pods]
        return all(state["restartCount"] and state["ready"] for state in states)

    collection.kube.wait_for("the operator is back", restarted, timeout=120, namespace=OPERATOR_NAMESPACE)


STRIKES: dict[str, Callable[[Collection], None]] = {
    "container SIGKILL": kill,
    "container SIGTERM": interrupt,
    "eviction": evict,
    "Pod deletion": delete,
    "node drain": drain,
    "OOM kill": run_out_of_memory,
    "S3 server restart": restart_s3_server,
    "API server restart": restart_api_server,
    "operator kill": kill_operator,
}
QUICK = ("container SIGKILL", "Pod deletion", "operator kill")


@pytest.fixture
def expected(undisturbed: Run) -> Objects:
    """Give what an undisturbed collection leaves."""
    return objects(undisturbed.store)


@pytest.fixture
def collection(
    kube: Kube, local: Local, tiny: Tiny, undisturbed: Run, namespace: str, moments: random.Random
) -> Collection:
    """Give a collection that has begun."""
    run = tiny.run(namespace, "collect", phases={"collect": {"sharedMemory": "2Gi"}})
    run.install()
    return Collection(kube, local, run, moments)


def strike(collection: Collection, kinds: list[str], faults: Faults) -> None:
    """Strike by each kind, at random moments."""
    shares = sorted(collection.moments.uniform(0.02, 0.65) for _ in kinds)
    for share, kind in zip(shares, kinds, strict=True):
        collection.until(share)
        began = time.monotonic()
        STRIKES[kind](collection)
        committed = collection.run.committed
        print(f"{kind} after {share:.0%}; {time.monotonic() - began:.1f} s later {committed} of {PARTS} parts")  # noqa: T201
        assert committed < PARTS, "the fault has struck nothing"
        faults.count(kind)


def bears(collection: Collection, kinds: list[str], faults: Faults, expected: Objects) -> None:
    """Strike, and compare what is there in the end with what an undisturbed collection leaves."""
    strike(collection, kinds, faults)
    collection.run.wait_until_complete(timeout=400)
    store = collection.run.store
    assert faults.compare(store, expected) == []
    assert {key for key in store.list() if key.startswith("activations/")} <= expected.keys(), "orphans: other bytes"
    status = collection.job
    assert (status["completedIndexes"], status["succeeded"]) == ("0,1", 2)
    assert status.get("failed", 0) == sum(kind in COUNTED for kind in kinds)


def test_some_faults_of_one_collection(collection: Collection, faults: Faults, expected: Objects) -> None:
    kinds = list(QUICK)
    collection.moments.shuffle(kinds)
    bears(collection, kinds, faults, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRIKES)
def test_a_fault_that_comes_twice(collection: Collection, faults: Faults, expected: Objects, kind: str) -> None:
    bears(collection, [kind, kind], faults, expected)


def test_a_mistake_ends_the_job_at_once(kube: Kube, tiny: Tiny, namespace: str) -> None:
    """There are no tokens, which exit code 2 tells: the first Pod that says so is the last one."""
    run = tiny.run(namespace, "collect", prepared=False)
    run.install()
    kube.wait_for(
        "the experiment has failed", lambda: run.condition("Failed").get("status") == "True", namespace=namespace
    )
    (job,) = run.jobs("collect")
    failed = {condition["type"]: condition for condition in job["status"]["conditions"]}["Failed"]
    assert failed["reason"] == "PodFailurePolicy"
    assert "exit code 2" in failed["message"]
    created = kube.get("events", "--field-selector=reason=SuccessfulCreate", namespace=namespace)
    pods = {event["message"].rpartition(" ")[2] for event in created if event["involvedObject"]["kind"] == "Job"}
    assert len(pods) == job["spec"]["completions"], "each index had one Pod"
