"""Run the model, capture activations, commit them part by part."""

from kubesae.collect.events import Events
from kubesae.collect.identity import check_experiment, claim
from kubesae.collect.repairs import Work, plan_work, repair
from kubesae.collect.run import Share, collect

__all__ = ["Events", "Share", "Work", "check_experiment", "claim", "collect", "plan_work", "repair"]
