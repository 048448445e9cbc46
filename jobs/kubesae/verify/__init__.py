"""Check collected data against its plan and its records."""

from kubesae.verify.console import report_lines
from kubesae.verify.run import verify

__all__ = ["report_lines", "verify"]
