"""Where each phase of an experiment stands, and which of its Jobs may run. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from kubesae_operator.api import JobPatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.ledger import Phase
    from kubesae_operator.api import JobState
    from kubesae_operator.observe import Observed

State = Literal["Waiting", "Running", "Complete", "Failed", "Suspended"]

BEFORE_TRAINING: tuple[Phase, ...] = ("prepare", "pilot", "collect")
"""phases that need the model, and write below `data`"""

SETTLE = timedelta(seconds=30)
"""after a Job's success the store may take so long to show it"""


@dataclass(frozen=True, slots=True)
class PhaseState:
    """One enabled phase: its `jobs` are those of now, without what is being deleted."""

    phase: Phase
    state: State
    jobs: tuple[JobState, ...]
    unproven: JobState | None = None
    """a Job that succeeded although the store does not show it"""


def phase_states(observed: Observed) -> list[PhaseState]:
    """Return the state of each enabled phase, in order."""
    done = complete_phases(observed)
    return [_state(observed, phase, complete=phase in done) for phase in observed.experiment.phases]


def complete_phases(observed: Observed) -> frozenset[Phase]:
    """Return the phases that have nothing left to do: by the store, and of `fetch` by its Job.

    A model that nobody needs any more need not be fetched: on a new cluster, over data that is complete.
    """
    phases = observed.experiment.phases
    done: frozenset[Phase] = observed.view.complete if observed.view else frozenset()
    needing = [phase for phase in BEFORE_TRAINING if phase in phases]
    fetched = any(job.ended == "Complete" for job in jobs_of(observed, "fetch"))
    if fetched or (needing and all(phase in done for phase in needing)):
        done |= {"fetch"}
    return done & set(phases)


def jobs_of(observed: Observed, phase: Phase) -> tuple[JobState, ...]:
    """Return the Jobs of a phase; of two for the same work the newer one."""
    newest: dict[str, JobState] = {}
    for job in sorted(observed.jobs, key=lambda job: (job.created, job.key)):
        if job.phase == phase and not job.deleting:
            newest[job.sae] = job
    return tuple(newest.values())


def is_released(job: JobState, queue: str) -> bool:
    """Whether a Job may run: not suspended, or given to its queue, which then has the say."""
    return not job.suspended or bool(queue and job.queue)


def has_nothing_to_do(observed: Observed, job: JobState) -> bool:
    """Whether the one SAE that a Job is for is trained, or interpreted."""
    saes = {sae.name: sae for sae in observed.view.saes} if observed.view else {}
    sae = saes.get(job.sae)
    return sae is not None and (sae.trained if job.phase == "train" else sae.interpreted)


def _state(observed: Observed, phase: Phase, *, complete: bool) -> PhaseState:
    jobs = jobs_of(observed, phase)
    unproven = None if complete else _unproven(observed, jobs)
    state: State = "Waiting"
    if complete:
        state = "Complete"
    elif unproven or any(job.ended == "Failed" for job in jobs):
        state = "Failed"
    elif observed.experiment.suspend:
        state = "Suspended"
    elif any(is_released(job, observed.experiment.queue) for job in jobs):
        state = "Running"
    elif any(job.held for job in jobs):
        state = "Suspended"
    return PhaseState(phase, state, jobs, unproven)


def _unproven(observed: Observed, jobs: Sequence[JobState]) -> JobState | None:
    """Return a Job that has succeeded, and what it did should long be there, but is not."""
    if observed.view is None or observed.problem:
        return None
    for job in jobs:
        if job.ended == "Complete" and job.phase != "fetch" and not (job.sae and has_nothing_to_do(observed, job)):
            shown_by = datetime.fromisoformat(job.ended_at) + SETTLE
            if observed.view.looked >= shown_by:
                return job
    return None


def job_patches(observed: Observed, states: Sequence[PhaseState]) -> Iterator[JobPatch]:
    """Say which Jobs to release or to suspend.

    A phase is released when every enabled phase before it is complete. Suspending wins over everything.
    """
    experiment = observed.experiment
    for job in observed.jobs:
        stops = (experiment.suspend or job.held) and (not job.suspended or job.queue)
        if stops and not job.ended and not job.deleting:
            yield JobPatch(job, suspend=True, queue="" if job.queue else None)
    for state in states if may_release(observed) else ():
        if state.state == "Complete":
            continue
        if not is_held_back(observed, state.phase):
            for job in state.jobs:
                idle = not job.ended and not is_released(job, experiment.queue)
                if idle and not job.held and not has_nothing_to_do(observed, job):
                    yield JobPatch(job, queue=experiment.queue) if experiment.queue else JobPatch(job, suspend=False)
        return


def may_release(observed: Observed) -> bool:
    """Whether enough is known, and nothing speaks against it, to release any phase."""
    view = observed.view
    return not observed.experiment.suspend and not observed.problem and view is not None and not view.mismatch


def is_held_back(observed: Observed, phase: Phase) -> bool:
    """Whether a phase has to wait for another, older experiment that writes at the same prefix."""
    return observed.rival is not None and observed.rival[1] and phase in BEFORE_TRAINING
