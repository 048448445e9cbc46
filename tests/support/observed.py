"""What the operator may have observed of an experiment, put together field by field; no cluster, no store.

    seen = observed(jobs=[job("prepare"), job("collect")], view=view("prepare"))
    reconcile(seen).patches

What is not said is as in an experiment of which nothing has happened yet.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kubesae.ledger import PHASES, Collection, Commits, Plan, shard_states
from kubesae_operator.api import JobState, PodState, SaeExperiment
from kubesae_operator.bucket import StoreView
from kubesae_operator.observe import Observed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kubesae.ledger import Phase

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
NAMESPACE, NAME = "research", "exp"
DATA = "s3://bucket/prefix"


def stamp(seconds: float = 0.0) -> str:
    """Return the time so many seconds before `NOW`, as Kubernetes writes it."""
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def experiment(**changes: Any) -> SaeExperiment:
    """Return a SAEExperiment with all phases but fetch."""
    whole = SaeExperiment.of(
        {
            "metadata": {
                "namespace": NAMESPACE,
                "name": NAME,
                "uid": "uid-exp",
                "generation": 1,
                "creationTimestamp": stamp(3600),
            },
            "spec": {"experiment": {"data": DATA}, "phases": list(PHASES[1:])},
        }
    )
    return replace(whole, **changes)


def job(phase: str, sae: str = "", *, number: int = 1, **changes: Any) -> JobState:
    """Return a suspended Job; those with a higher `number` are newer."""
    name = "-".join(filter(None, [NAME, phase, sae, f"{number:08x}"]))
    whole = JobState(
        kind="PyTorchJob" if phase == "train" else "Job",
        key=(NAMESPACE, name),
        uid=f"uid-{name}",
        created=stamp(1800 - number),
        experiment=NAME,
        phase=phase,
        sae=sae,
        suspended=True,
    )
    return replace(whole, **changes)


def running(phase: str, sae: str = "", **changes: Any) -> JobState:
    """Return a released Job with a Pod."""
    return job(phase, sae, suspended=False, active=1, **changes)


def ended(phase: str, how: str = "Complete", *, ago: float = 600.0, **changes: Any) -> JobState:
    """Return a Job that ended `ago` seconds before now."""
    reason = "" if how == "Complete" else "BackoffLimitExceeded"
    return job(phase, suspended=False, ended=how, ended_at=stamp(ago), **({"reason": reason} | changes))


def pod(phase: str = "collect", **changes: Any) -> PodState:
    """Return a Pod of a Job of `phase`, on a node."""
    whole = PodState((NAMESPACE, f"{NAME}-{phase}-0-abcde"), NAME, phase, job(phase).key[1], "node-1")
    return replace(whole, **changes)


def collection(done: Sequence[int], parts: int = 4, ages: Sequence[float] | None = None) -> Collection:
    """Return shards of `parts` parts of 100 tokens each, of which `done` are committed, the last so long ago."""
    plan = Plan(100 * parts * len(done), len(done), context=10, contexts_per_part=10, contexts_per_block=5)
    commits = {}
    for shard, count in enumerate(done):
        commits[shard] = Commits()
        for part in range(count):
            age = (ages[shard] if ages else 5.0) + 10.0 * (count - 1 - part)
            commits[shard].add(part, NOW - timedelta(seconds=age))
    return Collection.of(shard_states(plan, range(len(done)), commits, {}, 100, NOW))


def view(*complete: Phase, **changes: Any) -> StoreView:
    """Return what a store shows where these phases are complete."""
    return replace(StoreView(looked=NOW, complete=frozenset(complete)), **changes)


def observed(jobs: Iterable[JobState] = (), pods: Iterable[PodState] = (), **changes: Any) -> Observed:
    """Return an experiment with these Jobs and Pods, whose store is empty unless `view` says another."""
    whole = Observed(experiment(), NOW, tuple(jobs), tuple(pods), view())
    return replace(whole, **changes)
