"""Check collected data against its plan and its records."""

from kubesae.verify.console import report_lines, share_line
from kubesae.verify.run import ShareResult, Verification, examine, verify, verify_share

__all__ = ["ShareResult", "Verification", "examine", "report_lines", "share_line", "verify", "verify_share"]
