"""What to do about one experiment, from what was observed: a pure function.

    actions = reconcile(observed)

It knows no time but the observed one and no past but the status in the cluster, so an operator that is killed and
started again decides the same. Done twice it changes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kubesae_operator.api import WORDS, Actions, Event
from kubesae_operator.conditions import conditions
from kubesae_operator.phases import PhaseState, is_released, job_patches, phase_states
from kubesae_operator.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae_operator.observe import Observed

MOST_BYTES = 4096
LONG, SHORT, SHORTEST = 480, 200, 80
"""characters of a message; one may take six bytes"""

WARNINGS = {"Ready": "False", "Failed": "True", "Degraded": "True"}
"""conditions that tell of something wrong, and the status in which they do"""

NEWS = {"Complete", "Suspended"}
"""conditions whose becoming true is worth an event"""


def reconcile(observed: Observed) -> Actions:
    """Return the Jobs to release or suspend, the status to write if it is another, and the events of that change."""
    states = phase_states(observed)
    patches = tuple(job_patches(observed, states))
    old, new = observed.experiment.status, _fitted(_status(observed, states))
    if old == new:
        return Actions(patches)
    return Actions(patches, new, tuple(_events(old, new)))


def _status(observed: Observed, states: Sequence[PhaseState]) -> dict[str, Any]:
    found = conditions(observed, states)
    if observed.view is None and observed.experiment.status.get("phases"):
        shown = observed.experiment.status["phases"]  # until the store has been read, what it showed before
        word = observed.experiment.status.get("phase", "Pending")
    else:
        shown = [{"name": state.phase, "state": state.state} for state in states]
        word = _word(observed, states)
    true = {item["type"] for item in found if item["status"] == "True"}
    if "Suspended" in true and "Complete" not in true:
        word = "Suspended"
    elif "Failed" in true:
        word = "Failed"
    return {
        "observedGeneration": observed.experiment.generation,
        "phase": word,
        "phases": shown,
        **progress(observed),
        "conditions": found,
    }


def _word(observed: Observed, states: Sequence[PhaseState]) -> str:
    """Return what the experiment does now, in one word."""
    for state in states:
        if state.state != "Complete":
            queue = observed.experiment.queue
            begun = state.state == "Running" and any(is_released(job, queue) for job in state.jobs)
            return WORDS[state.phase] if begun else "Pending"
    return "Complete" if states else "Pending"


def _fitted(status: dict[str, Any]) -> dict[str, Any]:
    """Return the status in at most `MOST_BYTES`: messages are cut for it, and rows of shards are left out."""
    rows: list[str] = status.get("shardRows", [])
    ways = [(longest, kept) for kept in (rows, []) for longest in (LONG, SHORT)]
    for longest, kept in (*ways, (SHORTEST, [])):
        cut = [{**item, "message": _cut(item["message"], longest)} for item in status["conditions"]]
        fitted = {**status, "conditions": cut, "shardRows": kept}
        if not kept:
            del fitted["shardRows"]
        if len(json.dumps(fitted, ensure_ascii=False, separators=(",", ":")).encode()) <= MOST_BYTES:
            break
    return fitted


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _events(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Event]:
    before = {item["name"]: item["state"] for item in old.get("phases", ())}
    for item in new["phases"]:
        was, state = before.get(item["name"], "Waiting"), item["state"]
        if before and state == "Complete" != was:
            yield Event("PhaseComplete", f"{item['name']} is complete.")
        elif state == "Running" and was != "Running":
            yield Event("PhaseStarted", f"{item['name']} has started.")
    said = {item["type"]: item for item in old.get("conditions", ())}
    for item in new["conditions"]:
        kind, was = item["type"], said.get(item["type"], {})
        changed = (item["status"], item["reason"]) != (was.get("status", "False"), was.get("reason"))
        if item["status"] == WARNINGS.get(kind) and item["message"] and changed:
            yield Event(item["reason"], item["message"], warning=True)
        elif kind in NEWS and item["status"] == "True" and was.get("status") != "True":
            yield Event(kind, item["message"])
        elif kind == "Suspended" and item["status"] == "False" and was.get("status") == "True":
            yield Event("Resumed", "The experiment goes on.")
