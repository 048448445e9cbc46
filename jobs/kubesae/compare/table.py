"""The table of a comparison, as rows of text: for the terminal and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.compare.entries import Comparison, Entry

HEAD = ("SAE", "layer", "architecture", "k / coeff", "width", "seed", "lr", "L0", "FVU", "dead", "CE recovered", "")
BEST = "best"


def cells(entry: Entry) -> list[str]:
    """Return the cells of an SAE, under `HEAD`."""
    return [
        entry.name,
        str(entry.layer),
        entry.architecture,
        _sparsity(entry),
        f"{entry.d_sae:,}",
        str(entry.seed),
        "auto" if entry.lr is None else f"{entry.lr:g}",
        f"{entry.l0:.1f}",
        f"{entry.fvu:.4f}",
        f"{entry.dead_share:.2%}",
        "-" if entry.ce_recovered is None else f"{entry.ce_recovered:.4f}",
        BEST if entry.frontier else "",
    ]


def _sparsity(entry: Entry) -> str:
    """Return what sets the L0: k, or the coefficient of the architecture's penalty."""
    if entry.k is not None:
        return str(entry.k)
    coefficient = entry.l0_coeff if entry.l1_coeff is None else entry.l1_coeff
    return "-" if coefficient is None else f"{coefficient:.2g}"


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison: a table, and what its last column means."""
    rows = [HEAD, *(cells(entry) for entry in comparison.saes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        padded = [
            cell.ljust(width) if i in {0, 2} else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(padded).rstrip()
    yield "best: no other SAE of the layer is as sparse and reconstructs as well"
    yield from left_out_lines(comparison)


def left_out_lines(comparison: Comparison) -> Iterator[str]:
    """Yield a sentence for each SAE that is left out."""
    for left_out in comparison.left_out:
        yield f"{left_out.name} is left out: {left_out.reason}."
