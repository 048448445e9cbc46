"""Everything that a decision about one experiment rests on, gathered from the watches and the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubesae_operator.api import EXPERIMENT_LABEL, GROUP, PLURAL, VERSION, JobState, Key, PodState, SaeExperiment
from kubesae_operator.client import ApiError, Unanswered
from kubesae_operator.phases import SETTLE
from kubesae_operator.pods import pod_state
from kubesae_operator.reading import Reading
from kubesae_operator.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kubesae_operator.api import Problem
    from kubesae_operator.bucket import StoreView
    from kubesae_operator.client import Api

REFUSAL_SECONDS = 15.0
"""a Job without Pods for so long is asked why, and as often"""

Refusals = dict[str, tuple[float, str]]
"""by UID of a Job without Pods: when to ask why, and what was said last"""


@dataclass(frozen=True, slots=True)
class Observed:
    """One experiment: the object, its Jobs and Pods, and what its store shows.

    Attributes:
        now: when.
        view: the last look at the store; None before the first that worked.
        problem: what keeps the store from being read now.
        rival: another experiment that writes at the same prefix, and whether it is the older one.
        refusals: by name of a Job, why the API server takes no Pods of it.

    """

    experiment: SaeExperiment
    now: datetime
    jobs: tuple[JobState, ...] = ()
    pods: tuple[PodState, ...] = ()
    view: StoreView | None = None
    problem: Problem | None = None
    rival: tuple[Key, bool] | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)


class Observer:
    """The watches of a cluster, or of one namespace, and a reading of each experiment's store."""

    def __init__(self, api: Api, namespace: str, wake: Callable[[Key], object]) -> None:
        """`wake` is told the key of each experiment of which something has changed."""
        self._api = api
        self._wake = wake
        self._readings: dict[Key, Reading] = {}
        self._refusals: dict[Key, Refusals] = {}
        where = f"/namespaces/{namespace}" if namespace else ""
        labelled = {"labelSelector": EXPERIMENT_LABEL}
        unfinished = {**labelled, "fieldSelector": "status.phase!=Succeeded"}
        self.experiments = Watch(
            api, f"/apis/{GROUP}/{VERSION}{where}/{PLURAL}", {}, SaeExperiment.of, self._experiment_changed
        )
        self.jobs = Watch(api, f"/apis/batch/v1{where}/jobs", labelled, JobState.of, self._part_changed)
        self.train_jobs = Watch(
            api, f"/apis/kubeflow.org/v1{where}/pytorchjobs", labelled, JobState.of, self._part_changed
        )
        self.pods = Watch(api, f"/api/v1{where}/pods", unfinished, pod_state, self._part_changed)

    @property
    def watches(self) -> tuple[Watch[SaeExperiment], Watch[JobState], Watch[JobState], Watch[PodState]]:
        """All of them."""
        return self.experiments, self.jobs, self.train_jobs, self.pods

    @property
    def synced(self) -> bool:
        """Whether all watches have seen everything once."""
        return all(watch.synced for watch in self.watches)

    def _experiment_changed(self, old: SaeExperiment | None, new: SaeExperiment | None) -> None:
        for one in (old, new):
            if one is not None:
                self._wake(one.key)

    def _part_changed(self, old: JobState | PodState | None, new: JobState | PodState | None) -> None:
        for one in (old, new):
            if one is not None:
                self._wake((one.key[0], one.experiment))

    def observe(self, key: Key) -> tuple[Observed, float] | None:
        """Return what there is to know, and the seconds until it should be looked at again; None: it is gone."""
        experiment = self.experiments.objects.get(key)
        if experiment is None:
            self._readings.pop(key, None)
            self._refusals.pop(key, None)
            return None
        jobs = self._jobs_of(key)
        pods = tuple(pod for pod in list(self.pods.objects.values()) if (pod.key[0], pod.experiment) == key)
        reading = self._readings.setdefault(key, Reading(self._api))
        now = datetime.now(UTC)
        busy = any(not job.suspended and not job.ended for job in jobs)
        settling = any(job.ended and now - datetime.fromisoformat(job.ended_at) < SETTLE for job in jobs)
        wait = reading.read(experiment, busy=busy or settling, hurry=settling)
        observed = Observed(
            experiment=experiment,
            now=datetime.now(UTC),
            jobs=jobs,
            pods=pods,
            view=reading.view,
            problem=reading.problem,
            rival=self._rival(experiment),
            refusals=self._refused(key, jobs),
        )
        return observed, wait

    def _jobs_of(self, key: Key) -> tuple[JobState, ...]:
        found = [*list(self.jobs.objects.values()), *list(self.train_jobs.objects.values())]
        return tuple(sorted((job for job in found if (job.key[0], job.experiment) == key), key=lambda job: job.key))

    def _rival(self, experiment: SaeExperiment) -> tuple[Key, bool] | None:
        """Return the oldest other experiment that still collects at the same prefix, and whether it is older."""
        if not _collects(experiment):
            return None
        place = _place(experiment)
        others = [
            other
            for other in list(self.experiments.objects.values())
            if other.uid != experiment.uid and _place(other) == place and _collects(other)
        ]
        if not others:
            return None
        oldest = min(others, key=lambda other: (other.created, other.key))
        return oldest.key, (oldest.created, oldest.key) < (experiment.created, experiment.key)

    def _refused(self, key: Key, jobs: tuple[JobState, ...]) -> dict[str, str]:
        """Ask why released Jobs have no Pods, where that has lasted."""
        now, before, refusals = time.monotonic(), self._refusals.get(key, {}), Refusals()
        without = {job.uid: job for job in jobs if not (job.suspended or job.ended or job.deleting or job.active)}
        for uid, job in without.items():
            due, said = before.get(uid, (now + REFUSAL_SECONDS, ""))
            refusals[uid] = (due, said) if now < due else (now + REFUSAL_SECONDS, self._said_of(job))
        self._refusals[key] = refusals
        return {without[uid].key[1]: said for uid, (_, said) in refusals.items() if said}

    def _said_of(self, job: JobState) -> str:
        """Return the message of the newest event about a Job whose Pods are refused."""
        selector = f"involvedObject.name={job.key[1]},involvedObject.kind={job.kind},type=Warning"
        try:
            found = self._api.get(f"/api/v1/namespaces/{job.key[0]}/events", fieldSelector=selector)["items"]
        except (ApiError, Unanswered):
            return ""
        failed = [event for event in found if str(event.get("reason", "")).startswith("FailedCreate")]
        return str(max(failed, key=_seen_last).get("message", "")) if failed else ""


def _seen_last(event: dict[str, Any]) -> str:
    """Return when an event was seen last: one that comes again is counted, not made anew."""
    return str(event.get("lastTimestamp") or event["metadata"]["creationTimestamp"])


def _place(experiment: SaeExperiment) -> tuple[str, str]:
    return experiment.store.endpoint.rstrip("/"), str(experiment.description.get("data", "")).rstrip("/")


def _collects(experiment: SaeExperiment) -> bool:
    conditions = {item["type"]: item["status"] for item in experiment.status.get("conditions", ())}
    return "collect" in experiment.phases and conditions.get("CollectionComplete") != "True"
