"""sweep.html: the SAEs of a prefix in a table, and L0 against FVU with the frontier."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from kubesae.compare.table import HEAD, cells, left_out_lines
from kubesae.page import Series, charts, document, line_chart, paragraph, section, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.compare.entries import Comparison, Entry


def comparison_page(comparison: Comparison) -> str:
    """Return the page."""
    saes = comparison.saes
    count = f"{len(saes)} SAE{'' if len(saes) == 1 else 's'}"
    groups = groupby(saes, key=lambda entry: (entry.layer, entry.identity))
    frontiers = [_chart(layer, list(entries)) for (layer, _), entries in groups]
    return document(
        "Sweep: trained SAEs side by side",
        f"{count} at their best epoch, on validation rows. Lower is better for both L0 (features a token) and FVU "
        "(variance that is missing); what no other SAE of its layer beats is joined.",
        [
            charts(frontiers),
            section("All of them", table(HEAD, map(cells, saes))),
            *(paragraph(said, quiet=True) for said in left_out_lines(comparison)),
        ],
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
