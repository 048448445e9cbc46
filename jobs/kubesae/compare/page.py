"""sweep.html: the SAEs of a prefix in a table, and L0 against FVU with the frontier."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from kubesae.compare.table import HEAD, cells
from kubesae.page import Series, line_chart, table, whole_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.compare.entries import Comparison, Entry


def comparison_page(comparison: Comparison) -> str:
    """Return the page."""
    saes, left_out = comparison.saes, comparison.left_out
    count = f"{len(saes)} SAE{'' if len(saes) == 1 else 's'}"
    groups = groupby(saes, key=lambda entry: (entry.layer, entry.identity))
    charts = [_chart(layer, list(entries)) for (layer, _), entries in groups]
    return whole_page(
        "Sweep: trained SAEs side by side",
        f"{count} at their best epoch, on validation rows. Lower is better for both L0 (features a token) and FVU "
        "(variance that is missing); what no other SAE of its layer beats is joined.",
        f'<div class="charts">{"".join(charts)}</div>',
        f"<h2>All of them</h2>{table(HEAD, map(cells, saes))}",
        *(
            f'<p class="quiet">{escape(one.name)} is left out: its files are not what they should be '
            f"({escape(one.reason)}).</p>"
            for one in left_out
        ),
    )


def _chart(layer: int, entries: Sequence[Entry]) -> str:
    best = [entry for entry in entries if entry.frontier]
    others = [entry for entry in entries if not entry.frontier]
    series = [
        _series("beaten by another one", "other", others, joined=False),
        _series("frontier", "train", best, joined=True),
    ]
    return line_chart(f"Layer {layer}: FVU by L0", series, x_label="L0: active features a token")


def _series(label: str, kind: str, entries: Sequence[Entry], *, joined: bool) -> Series:
    points = [(entry.l0, entry.fvu) for entry in entries]
    return Series(label, kind, points, dots=True, joined=joined, names=[entry.name for entry in entries])
