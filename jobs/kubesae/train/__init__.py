"""Training of SAEs on collected activations. Needs torch."""

from kubesae.train.console import Console
from kubesae.train.run import TrainResult, run_training
from kubesae.train.trainer import Limits

__all__ = ["Console", "Limits", "TrainResult", "run_training"]
