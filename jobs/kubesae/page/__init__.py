"""Pages for people: HTML and SVG as text, in one file that needs neither a script nor a network."""

from kubesae.page.bars import histogram, named_bars
from kubesae.page.document import charts, document, table, tiles
from kubesae.page.lines import Series, line_chart

__all__ = ["Series", "charts", "document", "histogram", "line_chart", "named_bars", "table", "tiles"]
