"""What stands in the way of a run: machine, libraries, store, model, corpora."""

from kubesae.doctor.check import Check, exit_code
from kubesae.doctor.run import examine

__all__ = ["Check", "examine", "exit_code"]
