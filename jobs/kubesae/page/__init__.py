"""Pages in one file that load nothing else: their look, and charts as SVG. Light and dark both work."""

from kubesae.page.html import table, whole_page
from kubesae.page.plot import Series, line_chart

__all__ = ["Series", "line_chart", "table", "whole_page"]
