"""Release and retry: what the operator does for an experiment's phases, by a user's hand and rights."""

from kubesae.release.cluster import Cluster, PhaseJob
from kubesae.release.run import choose_experiment, release, retry

__all__ = ["Cluster", "PhaseJob", "choose_experiment", "release", "retry"]
