"""Whether a phase may begin: what the store says of the phases before it, as the operator asks it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, StoreError
from kubesae.experiment import Experiment, parse_yaml, validate
from kubesae.ledger import PHASES, phase_complete
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.ledger import Phase
    from kubesae.release.cluster import Cluster, PhaseJob

# The operator waits longer; here somebody looks on.
SECONDS = 30.0


def closed_gate(cluster: Cluster, jobs: Sequence[PhaseJob], phase: Phase) -> str | None:
    """Return why `phase` of the experiment of `jobs` may not begin; None when it may.

    Raises:
        ConfigError: its store cannot be looked at from here.

    """
    name = jobs[0].experiment
    text = cluster.description(name)
    experiment = validate(Experiment, parse_yaml(text, f"ConfigMap {name}"), f"ConfigMap {name}")
    enabled = {job.phase for job in jobs}
    settings = cluster.store_settings(cluster.spec(name))
    try:
        data = open_store(experiment.data, deadline=SECONDS, settings=settings)
        output = open_store(experiment.output_prefix, deadline=SECONDS, settings=settings)
        if "://" not in experiment.data:
            raise StoreError(f"{experiment.data} is a folder in the Pods")
        if phase != "fetch" and phase_complete(phase, data, output, experiment):
            return f"The store shows that {phase} is complete: there is nothing left to do."
        for earlier in PHASES[: PHASES.index(phase)]:
            if earlier not in enabled:
                continue
            if earlier == "fetch":
                done = all(job.is_now("Complete") for job in jobs if job.phase == earlier)
            else:
                done = phase_complete(earlier, data, output, experiment)
            if not done:
                return f"{earlier.capitalize()} is not complete yet, and {phase} works on what it leaves."
    except StoreError as error:
        raise ConfigError(
            f"Whether {phase} may begin cannot be seen from here: {error}. Run this where the store can be reached, or "
            "say --force."
        ) from error
    return None
