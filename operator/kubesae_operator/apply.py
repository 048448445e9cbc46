"""Carries out what `reconcile` wants, by the API."""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubesae_operator.api import API_VERSION, GROUP, KIND, PLURAL, QUEUE_LABEL
from kubesae_operator.client import ApiError, Unanswered

if TYPE_CHECKING:
    from prometheus_client import Counter

    from kubesae_operator.api import Actions, Event, JobPatch, JobState, Key, SaeExperiment
    from kubesae_operator.client import Api

log = logging.getLogger(__name__)

STATUS_SECONDS = 15.0
"""between two writes of one status"""

PATCHED_SECONDS = 1.0
"""after a change to a Job, until the watch has told of it"""

NOT_FOUND, CONFLICT = 404, 409
NOTE_BYTES = 1024


class Applier:
    """Writes for this replica, whose name `instance` events carry."""

    def __init__(self, api: Api, instance: str, writes: Counter) -> None:
        """Write nothing yet."""
        self._writes = writes
        self._api = api
        self._instance = instance
        self._written: dict[Key, float] = {}
        self._patched: dict[str, tuple[float, JobPatch]] = {}

    def apply(self, experiment: SaeExperiment, actions: Actions) -> float:
        """Carry out `actions`; return the seconds after which the status can be written, 0 if nothing is left to do.

        Raises:
            ApiError, Unanswered: something was refused; what is left is found again by looking anew.

        """
        fresh = [patch for patch in actions.patches if self._is_fresh(patch)]
        refusals = [refusal for patch in fresh if (refusal := self._patch(patch))]
        if fresh and not refusals:
            return PATCHED_SECONDS  # the status is that of what comes of it
        left = self._write_status(experiment, actions)
        if refusals:
            raise refusals[0]
        return left

    def _is_fresh(self, patch: JobPatch) -> bool:
        """Whether a patch is not the last one of its Job, just now: who undoes it is not fought for every second."""
        made, last = self._patched.get(patch.job.uid, (float("-inf"), patch))
        same = (patch.suspend, patch.queue) == (last.suspend, last.queue)
        return not same or time.monotonic() - made >= STATUS_SECONDS

    def _write_status(self, experiment: SaeExperiment, actions: Actions) -> float:
        if actions.status is None:
            return 0.0
        wait = self._written.get(experiment.key, float("-inf")) + STATUS_SECONDS - time.monotonic()
        if wait > 0:
            return wait
        self._written[experiment.key] = time.monotonic()
        self._write(experiment, actions.status)
        for event in actions.events:
            self._tell(experiment, event)
        return 0.0

    def forget(self, key: Key) -> None:
        """Drop what is known of an experiment that is gone."""
        self._written.pop(key, None)

    def _patch(self, patch: JobPatch) -> ApiError | None:
        """Change a Job; return the refusal. One that is gone, or another of that name, is none: the watch will tell."""
        job = patch.job
        body: dict[str, Any] = {"metadata": {"uid": job.uid}}
        if patch.suspend is not None:
            change = {"suspend": patch.suspend}
            body["spec"] = change if job.kind == "Job" else {"runPolicy": change}
        if patch.queue is not None:
            body["metadata"]["labels"] = {QUEUE_LABEL: patch.queue or None}
        self._writes.labels("job").inc()
        try:
            self._api.merge(_path(job), body)
        except ApiError as error:
            return None if error.status in (NOT_FOUND, CONFLICT) else error
        now = time.monotonic()
        recent = {uid: entry for uid, entry in self._patched.items() if now - entry[0] < STATUS_SECONDS}
        self._patched = {**recent, job.uid: (now, patch)}
        log.info("%s %s/%s: %s", job.kind, *job.key, "suspended" if patch.suspend else "released")
        return None

    def _write(self, experiment: SaeExperiment, status: dict[str, Any]) -> None:
        namespace, name = experiment.key
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace, "uid": experiment.uid},
            "status": status,
        }
        self._writes.labels("status").inc()
        try:
            self._api.apply(f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status", body)
        except ApiError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    def _tell(self, experiment: SaeExperiment, event: Event) -> None:
        """Make an event: one that is refused is only logged. Told again within a minute it has the same name."""
        namespace, name = experiment.key
        now = datetime.now(UTC)
        said = f"{experiment.uid} {event.reason} {event.note} {now:%Y-%m-%dT%H:%M}"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}", "namespace": namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": f"{GROUP}/operator",
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": event.reason,
            "type": "Warning" if event.warning else "Normal",
            "note": event.note.encode()[:NOTE_BYTES].decode(errors="ignore"),
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": namespace,
                "name": name,
                "uid": experiment.uid,
            },
        }
        self._writes.labels("event").inc()
        try:
            self._api.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body)
        except (ApiError, Unanswered) as error:
            if not (isinstance(error, ApiError) and error.status == CONFLICT):
                log.warning("event %s of %s/%s was refused: %s", event.reason, namespace, name, error)


def _path(job: JobState) -> str:
    namespace, name = job.key
    if job.kind == "Job":
        return f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
    return f"/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs/{name}"
