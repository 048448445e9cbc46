"""Training of SAEs on collected activations. Needs torch."""

from kubesae.train.console import Console
from kubesae.train.passes import Limits
from kubesae.train.run import TrainResult, TrainResults, run_training, run_trainings

__all__ = ["Console", "Limits", "TrainResult", "TrainResults", "run_training", "run_trainings"]
