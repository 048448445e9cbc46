"""Launch: training under torchrun in a Pod, with exit codes that a Job or a PyTorchJob understands."""

from kubesae.launch.exits import EXIT_FOLDER, begin_worker, end_worker
from kubesae.launch.run import pod_code, run_launch
from kubesae.launch.starts import Starts

__all__ = ["EXIT_FOLDER", "Starts", "begin_worker", "end_worker", "pod_code", "run_launch"]
