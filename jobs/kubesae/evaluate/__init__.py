"""FVU, L0, dead features and recovered cross-entropy of an SAE on the validation blocks."""

from kubesae.evaluate.report import CrossEntropy, Evaluation, report_lines
from kubesae.evaluate.run import evaluate

__all__ = ["CrossEntropy", "Evaluation", "evaluate", "report_lines"]
