"""The charts of a training's report."""

from kubesae.page import Series, line_chart

__all__ = ["Series", "line_chart"]
