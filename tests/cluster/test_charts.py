"""The experiment's chart on a real cluster, with Pods that only wait: what `helm upgrade` does to phases, whenever.

Nothing here needs the operator: the test releases phases as it does, by the same patch. The Pods run a shell script in
place of `kubesae`, so that what is shown is Helm's and the API server's doing alone. The bucket does not exist, so an
operator that is there finds nothing out and releases nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from harness import ClusterError
from harness.programs import command_line_tools
from releases import Release, write_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Kube

QUEUE = "kueue.x-k8s.io/queue-name"
PHASES = ("prepare", "pilot", "collect", "verify", "train", "interpret")
# In place of the program: prepare is done at once; all else waits for a signal, and ends as interrupted commands do.
PROGRAM = """#!/bin/sh
echo "$@"
[ "$1" = prepare ] && exit 0
trap 'exit 75' TERM
while :; do sleep 0.2; done
"""
SMALL = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
VALUES: dict[str, Any] = {
    "experiment": {
        "data": "s3://no-such-bucket/data",
        "model": "organisation/model",
        "layers": [3],
        "corpora": [{"name": "web", "source": "organisation/corpus"}],
        "num_shards": 2,
        "sae": [{"name": "first", "k": 3}],
    },
    "image": {"registry": "kubesae.test", "repository": "busybox", "tag": "1", "pullPolicy": "IfNotPresent"},
    "modelCache": {"sizeLimit": "1Mi"},
    "phases": {
        "all": {
            "scratch": "1Mi",
            "extraEnv": [{"name": "PATH", "value": "/usr/local/bin:/bin"}],
            "extraVolumes": [{"name": "program", "configMap": {"name": "program", "defaultMode": 0o555}}],
            "extraVolumeMounts": [{"name": "program", "mountPath": "/usr/local/bin"}],
        },
        **{phase: {"resources": SMALL} for phase in PHASES},
        "pilot": {"resources": SMALL, "gpus": 1},
        "collect": {"resources": SMALL, "gpus": 2},
        "train": {"resources": SMALL, "gpus": 0, "backend": "job"},
    },
}


class Experiment(Release):
    """A release and its jobs, released by the test."""

    def job(self, phase: str) -> dict[str, Any]:
        (found,) = self.jobs(phase)
        return found

    def pod(self, phase: str) -> dict[str, Any]:
        (found,) = [pod for pod in self.pods(phase) if "deletionTimestamp" not in pod["metadata"]]
        return found

    def suspended(self) -> dict[str, bool]:
        return {phase: self.job(phase)["spec"]["suspend"] for phase in PHASES}

    def patch(self, phase: str, change: dict[str, Any]) -> None:
        name = f"job/{self.job(phase)['metadata']['name']}"
        how = ["--type=merge", "--field-manager=kubesae-operator", f"--patch={json.dumps(change)}"]
        self.kube.kubectl("patch", name, f"--namespace={self.namespace}", *how)

    def release_phase(self, phase: str) -> None:
        self.patch(phase, {"spec": {"suspend": False}})

    def until_running(self, phase: str, pods: int = 1) -> set[str]:
        """Wait until that many Pods of a phase run; return their uids."""

        def running() -> set[str]:
            found = [p for p in self.pods(phase) if p["status"].get("phase") == "Running"]
            alive = {p["metadata"]["uid"] for p in found if "deletionTimestamp" not in p["metadata"]}
            return alive if len(alive) == pods else set()

        found: set[str] = self.kube.wait_for(f"{phase} runs", running, timeout=90, namespace=self.namespace)
        return found


@pytest.fixture(scope="module", params=["helm", pytest.param("helm3", marks=pytest.mark.slow)])
def either_helm(kube: Kube, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kube:
    """Give the cluster with Helm 4, and with Helm 3."""
    return replace(kube, tools=command_line_tools(tmp_path_factory.mktemp("tools"), request.param))


@pytest.fixture
def experiment(kube: Kube, either_helm: Kube, crd: None, namespace: str, tmp_path: Path) -> Iterator[Experiment]:
    """Give a release that is installed in a namespace that enforces `restricted`."""
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"}, "data": {"kubesae": PROGRAM}},
        namespace=namespace,
    )
    made = Experiment(either_helm, namespace, "exp", [write_values(tmp_path / "my.yaml", VALUES)])
    made.install()
    yield made
    kube.helm("uninstall", "exp", f"--namespace={namespace}", "--ignore-not-found")


def test_an_install_starts_nothing_by_itself_and_says_what_to_watch(experiment: Experiment) -> None:
    assert experiment.suspended() == dict.fromkeys(PHASES, True)
    assert experiment.pods() == []
    assert "kubectl get saex exp" in experiment.upgrade()


def test_an_upgrade_leaves_a_phase_that_runs_alone(experiment: Experiment) -> None:
    experiment.release_phase("collect")
    before = experiment.until_running("collect", pods=2)
    experiment.upgrade()
    experiment.upgrade("--set=phases.verify.workers=2")
    assert experiment.suspended() == {phase: phase != "collect" for phase in PHASES}
    assert experiment.until_running("collect", pods=2) == before


def test_slots_get_their_gpus_whole(experiment: Experiment) -> None:
    experiment.release_phase("collect")
    experiment.until_running("collect", pods=2)
    for pod in experiment.pods("collect"):
        assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert pod["spec"]["nodeName"]


def test_a_changed_pod_takes_over_from_the_one_that_ran(experiment: Experiment) -> None:
    experiment.release_phase("collect")
    before = experiment.until_running("collect", pods=2)
    old = experiment.job("collect")["metadata"]["name"]
    experiment.upgrade("--set=phases.all.podAnnotations.changed=yes")
    job = experiment.kube.wait_for("the old Job is gone", lambda: len(experiment.jobs("collect")) == 1)
    assert job
    assert experiment.job("collect")["metadata"]["name"] != old
    assert experiment.suspended() == {phase: phase != "collect" for phase in PHASES}
    assert not experiment.until_running("collect", pods=2) & before


def test_what_was_complete_starts_no_pod_when_its_image_changes(experiment: Experiment) -> None:
    experiment.release_phase("prepare")
    experiment.kube.wait_for(
        "prepare is complete",
        lambda: experiment.job("prepare")["status"].get("succeeded"),
        namespace=experiment.namespace,
    )
    experiment.upgrade()
    assert experiment.job("prepare")["spec"]["suspend"] is False
    experiment.upgrade("--set=phases.all.podAnnotations.changed=yes")
    assert experiment.suspended() == dict.fromkeys(PHASES, True)


def test_a_phase_that_waits_in_a_queue_is_left_to_it(experiment: Experiment) -> None:
    queued = "--set=queue.name=gpu"
    experiment.upgrade(queued)
    assert QUEUE not in experiment.job("collect")["metadata"]["labels"]
    experiment.patch("collect", {"metadata": {"labels": {QUEUE: "gpu"}}})
    experiment.upgrade(queued)
    assert experiment.job("collect")["metadata"]["labels"][QUEUE] == "gpu"
    assert experiment.suspended() == dict.fromkeys(PHASES, True)
    experiment.release_phase("collect")  # as Kueue does when it admits the Job
    before = experiment.until_running("collect", pods=2)
    experiment.upgrade(queued)
    assert experiment.until_running("collect", pods=2) == before
    experiment.upgrade(queued, "--set=phases.all.podAnnotations.changed=yes")
    assert experiment.job("collect")["metadata"]["labels"][QUEUE] == "gpu"
    assert experiment.suspended() == dict.fromkeys(PHASES, True)


def test_a_pytorchjob_is_treated_as_a_job_is(experiment: Experiment) -> None:
    where, kubeflow = f"--namespace={experiment.namespace}", "--set=phases.train.backend=pytorchjob"

    def train() -> dict[str, Any]:
        (found,) = experiment.kube.get("pytorchjobs", namespace=experiment.namespace)
        return found

    experiment.upgrade(kubeflow)
    assert train()["spec"]["runPolicy"]["suspend"] is True
    assert experiment.pods("train") == []
    change = '--patch={"spec":{"runPolicy":{"suspend":false}}}'
    how = ["--type=merge", "--field-manager=kubesae-operator", change]
    experiment.kube.kubectl("patch", f"pytorchjob/{train()['metadata']['name']}", where, *how)
    before = experiment.until_running("train")
    experiment.upgrade(kubeflow)
    assert experiment.until_running("train") == before
    changed = "--set=phases.train.podAnnotations.changed=yes"
    experiment.upgrade(kubeflow, changed)
    assert not train()["spec"]["runPolicy"].get("suspend")
    after = experiment.until_running("train")
    assert not after & before
    experiment.upgrade(changed)  # to the other back-end: a plain Job goes on in its place
    assert not experiment.kube.get("pytorchjobs", namespace=experiment.namespace)
    assert experiment.job("train")["spec"]["suspend"] is False
    assert not experiment.until_running("train") & after


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--set-json=experiment.tokens=5000000", "tokens: its default there, 5000000 in the values"),
        ("--set=experiment.data=s3://other/data", 'data: "s3://no-such-bucket/data" there'),
        ('--set-json=experiment.sae=[{"name":"first","k":4}]', "k: 3 there, 4 in the values"),
    ],
)
def test_a_forbidden_change_is_refused_and_changes_nothing(experiment: Experiment, change: str, said: str) -> None:
    experiment.release_phase("collect")
    before = experiment.until_running("collect", pods=2)
    with pytest.raises(ClusterError) as refused:
        experiment.upgrade(change)
    assert said in str(refused.value)
    assert "there" in str(refused.value)
    assert experiment.until_running("collect", pods=2) == before


def test_the_api_server_refuses_it_too_without_helm(experiment: Experiment) -> None:
    for change in ({"identity": "0" * 64}, {"saes": {"first": "0" * 64}}):
        with pytest.raises(ClusterError, match=r"cannot change|fixed by its name"):
            experiment.kube.kubectl(
                "patch", "saex", "exp", f"--namespace={experiment.namespace}", "--type=merge",
                f"--patch={json.dumps({'spec': change})}",
            )  # fmt: skip


def test_an_sae_more_replaces_only_what_trains_and_interprets(experiment: Experiment) -> None:
    before = {phase: experiment.job(phase)["metadata"]["name"] for phase in PHASES}
    experiment.upgrade('--set-json=experiment.sae=[{"name":"first","k":3},{"name":"second"}]')
    changed = {phase for phase in PHASES if experiment.job(phase)["metadata"]["name"] != before[phase]}
    assert changed == {"train", "interpret"}
    saes = experiment.kube.get("saex", "exp", namespace=experiment.namespace)["spec"]["saes"]
    assert set(saes) == {"first", "second"}


def test_a_default_written_out_is_no_change(experiment: Experiment) -> None:
    before = {phase: experiment.job(phase)["metadata"]["uid"] for phase in PHASES}
    experiment.upgrade("--set-json=experiment.tokens=1e9", "--set-json=experiment.seed=0")
    assert {phase: experiment.job(phase)["metadata"]["uid"] for phase in PHASES} == before


def test_an_experiment_that_was_suspended_by_hand_stays_so(experiment: Experiment) -> None:
    where = [f"--namespace={experiment.namespace}", "--type=merge"]
    experiment.kube.kubectl("patch", "saex", "exp", *where, '--patch={"spec":{"suspend":true}}')
    experiment.upgrade()
    assert experiment.kube.get("saex", "exp", namespace=experiment.namespace)["spec"]["suspend"] is True


def test_a_rollback_to_another_image_starts_nothing_early_and_one_to_the_same_is_refused(
    experiment: Experiment,
) -> None:
    experiment.upgrade("--set=phases.all.podAnnotations.changed=yes")
    experiment.release_phase("collect")
    running = experiment.until_running("collect", pods=2)
    where = f"--namespace={experiment.namespace}"
    if experiment.kube.helm("version", "--short").startswith("v3"):  # applies from the client's side: no conflicts
        experiment.kube.helm("rollback", "exp", "2", where)
        assert experiment.suspended()["collect"], "the operator has to release it again"
        experiment.release_phase("collect")
        running = experiment.until_running("collect", pods=2)
    else:
        with pytest.raises(ClusterError, match=r"conflict.*spec.suspend"):
            experiment.kube.helm("rollback", "exp", "2", where)
    assert experiment.until_running("collect", pods=2) == running
    experiment.kube.helm("rollback", "exp", "1", where)
    experiment.kube.wait_for("the old Job is gone", lambda: len(experiment.jobs("collect")) == 1)
    assert experiment.suspended() == dict.fromkeys(PHASES, True)
    experiment.upgrade()


def test_uninstall_leaves_the_crd_and_an_install_goes_on(experiment: Experiment) -> None:
    experiment.release_phase("collect")
    experiment.until_running("collect", pods=2)
    experiment.uninstall()
    assert experiment.kube.get("crd", "saeexperiments.kubesae.dev") is not None
    assert not experiment.kube.get("saex", namespace=experiment.namespace)
    experiment.install()
    assert experiment.suspended() == dict.fromkeys(PHASES, True)
