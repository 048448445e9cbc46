"""Pages in one file that load nothing else: their look, and charts as SVG. Light and dark both work."""

from kubesae.page.bars import histogram, named_bars
from kubesae.page.document import bullets, charts, document, pairs, paragraph, section, table, tiles
from kubesae.page.lines import Series, line_chart
from kubesae.page.stacks import Stack, stacked_bars

__all__ = [
    "Series",
    "Stack",
    "bullets",
    "charts",
    "document",
    "histogram",
    "line_chart",
    "named_bars",
    "pairs",
    "paragraph",
    "section",
    "stacked_bars",
    "table",
    "tiles",
]
