"""From a row to the text it comes from."""

from kubesae.trace.run import trace
from kubesae.trace.traced import Traced, trace_lines

__all__ = ["Traced", "trace", "trace_lines"]
