"""How good an SAE is on the validation blocks: reconstructions, features, and what the model itself loses."""

from kubesae.evaluate.console import report_lines
from kubesae.evaluate.report import CrossEntropy, Evaluation
from kubesae.evaluate.run import evaluate

__all__ = ["CrossEntropy", "Evaluation", "evaluate", "report_lines"]
