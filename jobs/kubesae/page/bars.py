"""Bars as SVG text: counts over the bins of an axis, and a few named values below each other."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from kubesae.page import axis as axes
from kubesae.page.axis import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    frame,
    grid_line,
    nice_ticks,
    number,
    x_tick,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = 150
"""width of the names of named bars"""
_VALUES = 74
"""width of their values"""


def histogram(
    title: str, edges: Sequence[float], counts: Sequence[int], *, x_label: str, note: str, kind: str = "train"
) -> str:
    """Return a figure of `counts`: bar i stands from `edges[i]` to `edges[i + 1]`. `note` is the text below it."""
    axis = Axis.over([0.0, *map(float, counts)], log=False)
    low, high = edges[0], edges[-1]

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [grid_line(axis, tick) for tick in axis.ticks]
    parts += [x_tick(x(tick), tick) for tick in nice_ticks(low, high) if low <= tick <= high]
    parts.append(axes.x_label(x_label))
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        top, gap = axis.y(count), min(1.0, 0.1 * (x(right) - x(left)))
        parts.append(
            f'<rect class="{kind}" x="{x(left):.2f}" y="{top:.1f}" width="{x(right) - x(left) - gap:.2f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{number(left)} to {number(right)}: {count:,}</title></rect>'
        )
    return frame(title, parts, note=note)


def named_bars(title: str, bars: Sequence[tuple[str, float, str]], *, note: str, digits: int = 4) -> str:
    """Return a figure of a few bars, each with its name, its value (not below 0) and its CSS class."""
    longest = max((value for _, value, _ in bars), default=0.0) or 1.0
    step = (HEIGHT - TOP - BOTTOM // 2) / max(1, len(bars))
    room = WIDTH - _NAMES - _VALUES
    parts = []
    for i, (name, value, kind) in enumerate(bars):
        middle, thick = TOP + (i + 0.5) * step, min(30.0, 0.6 * step)
        length = max(0.0, value) / longest * room
        parts.append(
            f'<text class="name" x="{_NAMES - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="{kind}" x="{_NAMES}" y="{middle - thick / 2:.1f}" width="{length:.1f}" '
            f'height="{thick:.1f}" rx="3"/>'
            f'<text class="value" x="{_NAMES + length + 8:.1f}" y="{middle + 4:.1f}">{value:.{digits}f}</text>'
        )
    return frame(title, parts, note=note)
