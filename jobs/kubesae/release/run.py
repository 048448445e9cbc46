"""Release a phase of an experiment in a cluster, or make a failed job of it anew, as the user of a kubeconfig.

    kubesae release collect --release demo -n research
    kubesae retry train --release demo -n research

The operator releases phases by itself when the ones before are complete; without it a person does so with this. Neither
changes what Helm owns: a release changes `suspend` (or sets the label of a Kueue queue), which the chart leaves alone
from then on, and a job that is made anew has name, labels, annotations and spec of the old one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError, KubesaeError
from kubesae.release.cluster import QUEUE, PhaseJob
from kubesae.release.gate import closed_gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.ledger import Phase
    from kubesae.release.cluster import Cluster

# Seconds within which a deleted job and its Pods must be gone.
GONE_SECONDS = 120.0
_POLL_SECONDS = 1.0
# What controllers write to a job and its Pods: a new one gets its own.
_OWN = ("controller-uid", "job-name", "batch.kubernetes.io/")


def choose_experiment(jobs: Sequence[PhaseJob], name: str | None, namespace: str) -> list[PhaseJob]:
    """Return the jobs of the experiment with this name, or of the only one there is.

    Raises:
        ConfigError: there is none, or there are several and none is named.

    """
    there = sorted({job.experiment for job in jobs})
    if not there:
        raise ConfigError(f"There is no experiment in namespace {namespace}. Give --namespace, or `helm install` one.")
    if name is None and len(there) > 1:
        raise ConfigError(
            f"There are several experiments in namespace {namespace}: {', '.join(there)}. Give --release."
        )
    if name is not None and name not in there:
        raise ConfigError(f"There is no experiment {name} in namespace {namespace}, but {', '.join(there)}.")
    return [job for job in jobs if job.experiment == (name or there[0])]


def release(cluster: Cluster, jobs: Sequence[PhaseJob], phase: Phase, *, force: bool) -> list[str]:
    """Release the jobs of a phase, or hand them to the experiment's Kueue queue, and return their names.

    Args:
        cluster: where they are.
        jobs: all of the experiment.
        phase: which to release.
        force: do not ask whether the phases before are complete.

    Raises:
        ConfigError: the experiment has no such jobs, they are released already, or the gate is closed.

    """
    mine = _of_phase(jobs, phase)
    if any(job.held for job in mine):
        raise ConfigError(
            f"The release's values hold {phase} back: phases.{phase}.suspend is true. Set it to false, or leave it "
            "out, and `helm upgrade`."
        )
    waiting = [job for job in mine if job.suspended]
    if not waiting:
        names = ", ".join(job.name for job in mine)
        raise ConfigError(f"{phase.capitalize()} is released already: {names}. Look at it with `kubectl get saex`.")
    if not force and (reason := closed_gate(cluster, jobs, phase)):
        raise ConfigError(f"{reason} `kubesae monitor` shows how far it is; --force releases {phase} all the same.")
    queue = cluster.spec(jobs[0].experiment).get("queueName")
    for job in waiting:
        cluster.patch(job, _release_of(job, queue))
    return [job.name for job in waiting]


def _release_of(job: PhaseJob, queue: str | None) -> dict[str, Any]:
    if queue:
        return {"metadata": {"labels": {QUEUE: queue}}}
    return {"spec": {"suspend": False} if job.kind[2] == "jobs" else {"runPolicy": {"suspend": False}}}


def retry(cluster: Cluster, jobs: Sequence[PhaseJob], phase: Phase) -> list[str]:
    """Make the failed jobs of a phase anew, and return their names.

    Raises:
        ConfigError: the experiment has no such jobs, or none of them has failed.
        KubesaeError: a deleted job does not go away.

    """
    mine = _of_phase(jobs, phase)
    failed = [job for job in mine if job.is_now("Failed")]
    if not failed:
        names = ", ".join(job.name for job in mine)
        raise ConfigError(
            f"No job of {phase} has ended Failed: {names}. One that runs tries again by itself; `kubectl describe` "
            "tells what it waits for."
        )
    for job in failed:
        cluster.delete(job)
        _until_gone(cluster, job)
        cluster.apply(again(job), _manager(job))
    return [job.name for job in failed]


def again(job: PhaseJob) -> PhaseJob:
    """Return what makes a job anew: what its chart said, without what controllers have written."""
    metadata, spec = job.body["metadata"], _without_controllers(job.body["spec"])
    new = {
        "apiVersion": job.body["apiVersion"],
        "kind": job.body["kind"],
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": _chosen(metadata.get("labels")),
            "annotations": _chosen(metadata.get("annotations")),
        },
        "spec": spec,
    }
    return PhaseJob(job.kind, new)


def _without_controllers(spec: dict[str, Any]) -> dict[str, Any]:
    new = {name: value for name, value in spec.items() if name not in {"selector", "suspend", "template"}}
    if "runPolicy" in new:
        new["runPolicy"] = {name: value for name, value in new["runPolicy"].items() if name != "suspend"}
    if "template" in spec:
        template = spec["template"]
        labels = _chosen(template["metadata"].get("labels"))
        new["template"] = {**template, "metadata": {**template["metadata"], "labels": labels}}
    return new


def _chosen(entries: dict[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (entries or {}).items() if not name.startswith(_OWN)}


def _manager(job: PhaseJob) -> str:
    """Return who applied the job: Helm, whose fields the new one's must be too."""
    appliers = [
        str(entry["manager"])
        for entry in job.body["metadata"].get("managedFields") or ()
        if entry.get("operation") == "Apply" and not entry.get("subresource")
    ]
    return appliers[0] if appliers else "helm"


def _until_gone(cluster: Cluster, job: PhaseJob) -> None:
    end = time.monotonic() + GONE_SECONDS
    while (there := cluster.read(job)) and there.body["metadata"]["uid"] == job.body["metadata"]["uid"]:
        if time.monotonic() > end:
            raise KubesaeError(
                f"{job.name} is deleted, but it or its Pods are still there after {GONE_SECONDS:.0f} s. See `kubectl "
                "get pods`; when they are gone, `helm upgrade` makes the job again."
            )
        time.sleep(_POLL_SECONDS)


def _of_phase(jobs: Sequence[PhaseJob], phase: str) -> list[PhaseJob]:
    mine = [job for job in jobs if job.phase == phase]
    if not mine:
        phases = ", ".join(dict.fromkeys(job.phase for job in jobs if job.phase))
        raise ConfigError(f"{jobs[0].experiment} has no phase {phase!r}. It has {phases}.")
    return mine
