"""All trained SAEs of a prefix side by side: a table, and which of them no other one beats. No torch."""

from kubesae.compare.entries import Comparison, Entry
from kubesae.compare.run import compare, write_comparison
from kubesae.compare.table import comparison_lines

__all__ = ["Comparison", "Entry", "compare", "comparison_lines", "write_comparison"]
