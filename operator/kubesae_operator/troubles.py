"""What keeps an experiment back, and what to do about it, from its Jobs, Pods and store. Pure."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from kubesae.units import duration
from kubesae_operator.api import EXPERIMENT_LABEL, PHASE_LABEL, Problem
from kubesae_operator.phases import may_release

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae_operator.api import JobState, PodState
    from kubesae_operator.observe import Observed
    from kubesae_operator.phases import PhaseState

STUCK = timedelta(minutes=5)
"""a Pod that was to have ended so long ago does not end by itself"""

FAILING = 3
"""restarts of one Pod or index, or failed Pods of a Job without indexes, from which on they are told of"""

FRESH = timedelta(minutes=15)
"""a container that ended longer ago is history: the longest pause before another start is ten minutes"""

QUOTED = 160
"""characters of what others say"""

EXIT_USER, EXIT_INTERRUPTED = 2, 75


def failures(observed: Observed, states: Sequence[PhaseState]) -> Iterator[Problem]:
    """What does not go on by itself: failed Jobs, data of another experiment, a description that is none."""
    if observed.problem and observed.problem.reason == "InvalidExperiment":
        yield observed.problem
    if observed.view and observed.view.mismatch:
        yield Problem("IdentityMismatch", observed.view.mismatch)
    for state in states:
        if state.state != "Failed":
            continue
        for job in state.jobs:
            if job.ended == "Failed":
                yield Problem("JobFailed", _job_failed(observed, job))
        if state.unproven:
            yield Problem(
                "NothingStored",
                f"Job {state.unproven.key[1]} has succeeded, but the store does not show {state.phase} complete. See "
                f"{_logs(observed, state.phase)}, then `kubesae retry {state.phase}`.",
            )


def _job_failed(observed: Observed, job: JobState) -> str:
    said = next((pod.said for pod in _pods_of(observed, job) if pod.said), "")
    last = f' Its last words: "{_cut(said, end=True)}"' if said else f" {_cut(job.message)}"
    return (
        f"Job {job.key[1]} has failed ({job.reason}).{last} See {_logs(observed, job.phase)}, mend it, then "
        f"`kubesae retry {job.phase}`."
    )


def troubles(observed: Observed, states: Sequence[PhaseState]) -> Iterator[Problem]:
    """What holds up work that goes on, or would."""
    if observed.rival and observed.rival[1]:
        yield _shared(observed, *observed.rival)
    for state in states:
        if state.state == "Running":
            for job in state.jobs:
                if job.key[1] in observed.refusals:
                    yield _refused(job, observed.refusals[job.key[1]])
            pods = [pod for pod in observed.pods if pod.phase == state.phase]
            yield from _pod_troubles(observed, state, pods)
            if state.phase == "collect":
                yield from _silence(observed)
    if observed.rival and not observed.rival[1]:
        yield _shared(observed, *observed.rival)
    due = next((state for state in states if state.state != "Complete"), None)
    if due and not due.jobs and may_release(observed):
        yield Problem(
            "JobMissing",
            f"{due.phase} is due, and there is no Job for it. Run `helm upgrade` with the values of the install; if a "
            "Job was deleted on purpose, that makes it anew.",
        )


def _shared(observed: Observed, rival: tuple[str, str], older: bool) -> Problem:  # noqa: FBT001 - a field of Observed
    name, data = f"{rival[0]}/{rival[1]}", observed.experiment.description.get("data")
    if older:
        return Problem(
            "PrefixShared",
            f"Experiment {name} collects at {data} already, so this one collects nothing. Give it another `data`, turn "
            "its phases up to verify off to use those data, or uninstall the other.",
        )
    return Problem("PrefixShared", f"Experiment {name} wants to collect at {data} too, and has to wait. Uninstall it.")


def _refused(job: JobState, said: str) -> Problem:
    if "exceeded quota" in said:
        return Problem(
            "QuotaExceeded",
            f"Job {job.key[1]} gets no Pod: {_cut(said)}. Raise the quota of namespace {job.key[0]}, or lower "
            f"phases.{job.phase}.resources or gpus.",
        )
    return Problem("PodsRefused", f"Job {job.key[1]} gets no Pod: {_cut(said)}. Mend that: it is tried again.")


def _pod_troubles(observed: Observed, state: PhaseState, pods: Sequence[PodState]) -> Iterator[Problem]:
    by_reason: dict[str, list[PodState]] = defaultdict(list)
    in_turn: dict[str, list[PodState]] = {job.key[1]: [] for job in state.jobs if job.kind == "Job"}
    for pod in pods:
        if _is_stuck(pod, observed.now):
            by_reason["PodStuck"].append(pod)
        elif pod.ended_at and observed.now - datetime.fromisoformat(pod.ended_at) > FRESH:
            continue
        elif pod.trouble:
            by_reason[pod.trouble[0]].append(pod)
        elif pod.exit_code not in (None, 0, EXIT_INTERRUPTED):
            if pod.restarts >= FAILING:
                by_reason["ContainerFailing"].append(pod)
            elif pod.index is None and pod.job in in_turn:  # never started again: another Pod takes its place
                in_turn[pod.job].append(pod)
    for job, those in in_turn.items():
        if len(those) >= FAILING:
            last = max(those, key=lambda pod: pod.ended_at)
            yield Problem(
                "ContainerFailing",
                f"{len(those)} Pods of Job {job} have failed, one after the other, the last with {_end(last)}. See "
                f"{_logs(observed, state.phase)}.",
            )
    for reason, those in by_reason.items():
        first, others = those[0], f" and {len(those) - 1} more" if len(those) > 1 else ""
        yield Problem(reason, _pod_message(observed, state, reason, first, f"Pod {first.key[1]}{others}"))


def _pod_message(observed: Observed, state: PhaseState, reason: str, pod: PodState, who: str) -> str:
    said = _cut(pod.trouble[1]) if pod.trouble else ""
    phase, node = state.phase, pod.node or "no node"
    if reason == "ImageMissing":
        return f"{who}: image {said} cannot be pulled. Check image.registry, repository, tag and imagePullSecrets."
    if reason == "ConfigMissing":
        return f"{who}: {said}. Create it in namespace {pod.key[0]}: the Pod then starts by itself."
    if reason == "Unschedulable":
        return f"{who}: {said} Add such nodes or wait for them, or change phases.{phase}.gpus, resources, nodeSelector."
    if reason == "OutOfMemory":
        return f"{who} on {node} ran out of memory. Raise phases.{phase}.resources.limits.memory."
    if reason == "PodStuck":
        late = _about(observed.now - datetime.fromisoformat(pod.deleted_at))
        return (
            f"{who} on {node} should have ended about {late} ago, and nothing takes its place before it has. If the "
            f"node is lost for good: `kubectl delete node {node}`."
        )
    return f"{who} fails again and again, {_end(pod)}. See {_logs(observed, phase)}."


def _end(pod: PodState) -> str:
    """Say how a container ended, with its last words."""
    return f"exit {pod.exit_code}" + (f': "{_cut(pod.said, end=True)}"' if pod.said else "")


def _is_stuck(pod: PodState, now: datetime) -> bool:
    # deletionTimestamp is when the grace period ends
    return bool(pod.deleted_at) and now - datetime.fromisoformat(pod.deleted_at) > STUCK


def _about(time: timedelta) -> str:
    """Return a time to the minute: a message that changed with every look would be written with every look."""
    return duration(60.0 * round(time.total_seconds() / 60.0))


def _silence(observed: Observed) -> Iterator[Problem]:
    shards = observed.view.collection.shards if observed.view and observed.view.collection else ()
    silent = [shard for shard in shards if shard.state == "silent"]
    if not silent:
        return
    first = max(silent, key=lambda shard: shard.age or 0.0)
    pod = next((pod for pod in observed.pods if pod.phase == "collect" and pod.index == first.shard), None)
    where = f" (node {pod.node})" if pod and pod.node else ""
    usual = f", usually every {duration(first.interval)}" if first.interval else ""
    others = f" {len(silent) - 1} more are silent too." if len(silent) > 1 else ""
    late = _about(timedelta(seconds=first.age or 0.0))
    yield Problem(
        "NoProgress",
        f"Shard {first.shard}{where} has committed nothing for about {late}{usual}.{others} See "
        f"{_logs(observed, 'collect')}.",
    )


def _pods_of(observed: Observed, job: JobState) -> list[PodState]:
    """Return the Pods of a Job, those of a user's mistake first."""
    mine = [pod for pod in observed.pods if pod.job == job.key[1]]
    return sorted(mine, key=lambda pod: pod.exit_code != EXIT_USER)


def _logs(observed: Observed, phase: str) -> str:
    namespace, name = observed.experiment.key
    return f"`kubectl logs -n {namespace} -l {EXPERIMENT_LABEL}={name},{PHASE_LABEL}={phase} --all-containers`"


def _cut(text: str, *, end: bool = False) -> str:
    """Return at most `QUOTED` characters of one line, from its beginning or its end."""
    line = " ".join(text.split()).rstrip(".")
    if len(line) <= QUOTED:
        return line
    return f"…{line[1 - QUOTED :]}" if end else f"{line[: QUOTED - 1]}…"
