"""What keeps a Pod from its work, told from the few fields of its status that say so."""

from __future__ import annotations

from typing import Any

from kubesae_operator.api import EXPERIMENT_LABEL, PHASE_LABEL, PodState

SAID = 400
"""characters kept of a container's last words"""

_WAITING = {
    "ImagePullBackOff": "ImageMissing",
    "ErrImagePull": "ImageMissing",
    "InvalidImageName": "ImageMissing",
    "ErrImageNeverPull": "ImageMissing",
    "CreateContainerConfigError": "ConfigMissing",
}
_FAILURES = "batch.kubernetes.io/job-index-failure-count"
_IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
_INDEX = "batch.kubernetes.io/job-completion-index"
_JOB_LABELS = ("batch.kubernetes.io/job-name", "training.kubeflow.org/job-name")


def pod_state(data: dict[str, Any]) -> PodState:
    """Cut down the API's object."""
    meta, status = data["metadata"], data.get("status") or {}
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    end = _end(containers)
    return PodState(
        key=(meta["namespace"], meta["name"]),
        experiment=labels.get(EXPERIMENT_LABEL, ""),
        phase=labels.get(PHASE_LABEL, ""),
        job=next((labels[name] for name in _JOB_LABELS if name in labels), ""),
        node=(data.get("spec") or {}).get("nodeName", ""),
        index=int(notes[_INDEX]) if _INDEX in notes else None,
        restarts=int(notes.get(_FAILURES, 0))
        + int(notes.get(_IGNORED, 0))
        + sum(container.get("restartCount", 0) for container in containers),
        trouble=_waiting(containers) or _unscheduled(status) or _killed(end),
        exit_code=end.get("exitCode"),
        ended_at=end.get("finishedAt") or "",
        said=" ".join(str(end.get("message", "")).split())[-SAID:],
        deleted_at=meta.get("deletionTimestamp", ""),
    )


def _waiting(containers: list[dict[str, Any]]) -> tuple[str, str] | None:
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = _WAITING.get(waiting.get("reason", ""))
        if reason == "ImageMissing":
            return reason, container.get("image", "") or waiting.get("message", "")
        if reason:
            return reason, waiting.get("message", "")
    return None


def _unscheduled(status: dict[str, Any]) -> tuple[str, str] | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return "Unschedulable", condition.get("message", "")
    return None


def _end(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how a container ended, the present one or the one before it, if it was no success."""
    for container in containers:
        for state in ("state", "lastState"):
            end: dict[str, Any] = (container.get(state) or {}).get("terminated") or {}
            if end.get("exitCode"):
                return end
    return {}


def _killed(end: dict[str, Any]) -> tuple[str, str] | None:
    return ("OutOfMemory", "") if end.get("reason") == "OOMKilled" else None
