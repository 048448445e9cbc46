"""The conditions of an experiment (`metav1.Condition`). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae_operator.api import CONDITIONS, Problem
from kubesae_operator.troubles import failures, troubles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae_operator.observe import Observed
    from kubesae_operator.phases import PhaseState

Said = tuple[bool, str, str]
"""status, reason, message"""

NO: Said = (False, "NotYet", "")


def conditions(observed: Observed, states: Sequence[PhaseState]) -> list[dict[str, Any]]:
    """Return all conditions; one whose status has not changed keeps its time."""
    said = _said(observed, states)
    old = {item["type"]: item for item in observed.experiment.status.get("conditions", ())}
    now = observed.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    found = []
    for kind in CONDITIONS:
        holds, reason, message = said[kind]
        status, before = "True" if holds else "False", old.get(kind, {})
        found.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": before["lastTransitionTime"] if before.get("status") == status else now,
                "observedGeneration": observed.experiment.generation,
            }
        )
    return found


def _said(observed: Observed, states: Sequence[PhaseState]) -> dict[str, Said]:
    by_phase = {state.phase: state.state for state in states}
    complete = bool(states) and all(state.state == "Complete" for state in states)
    failed, held_up = list(failures(observed, states)), list(troubles(observed, states))
    suspended = observed.experiment.suspend
    return {
        "Ready": _ready(observed, failed),
        "Collecting": _working(by_phase.get("collect")),
        "CollectionComplete": (True, "Done", "") if by_phase.get("collect") == "Complete" else NO,
        "Training": _working(by_phase.get("train")),
        "Complete": (True, "Done", "Every phase is complete.") if complete else NO,
        "Failed": _first(failed, "AsExpected"),
        "Suspended": (True, "SuspendedByUser", "Set spec.suspend to false to go on.") if suspended else NO,
        "Degraded": _first([] if complete else held_up, "AsExpected"),
    }


def _ready(observed: Observed, failed: Sequence[Problem]) -> Said:
    blocking = [problem for problem in failed if problem.reason == "IdentityMismatch"]
    problem = observed.problem or (blocking[0] if blocking else None)
    if problem:
        return False, problem.reason, problem.message
    if observed.view is None:
        return NO
    return True, "AsExpected", ""


def _working(state: str | None) -> Said:
    if state == "Running":
        return True, "InProgress", ""
    return (False, "Done", "") if state == "Complete" else NO


def _first(problems: Sequence[Problem], otherwise: str) -> Said:
    """Say the first problem, and how many more there are."""
    if not problems:
        return False, otherwise, ""
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return True, problems[0].reason, problems[0].message + more
