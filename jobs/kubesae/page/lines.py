"""Line charts as SVG text: no library, no script, colours from the page's CSS so that light and dark both work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from kubesae.page import axis as axes
from kubesae.page.axis import (
    LEFT,
    RIGHT,
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


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: (x, y) points in order of x. `kind` is its CSS class; `dots` marks each point."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


def line_chart(title: str, series: Sequence[Series], *, x_label: str, log: bool = False) -> str:
    """Return a figure with a chart of `series`; `log` draws y on a logarithmic scale where all of it is above 0."""
    drawn = [s for s in series if s.points]
    values = [y for s in drawn for _, y in s.points if math.isfinite(y)]
    if not values:
        return ""
    log = log and min(values) > 0
    axis = Axis.over(values, log=log)
    last = max(x for s in drawn for x, _ in s.points)
    parts = [grid_line(axis, tick) for tick in axis.ticks]
    parts += [x_tick(_x(x, last), x) for x in nice_ticks(0, last)]
    parts.append(axes.x_label(x_label))
    parts += [_curve(s, axis, last) for s in drawn]
    legend = "".join(f'<span class="key {s.kind}">{escape(s.label)}</span>' for s in drawn if s.label)
    return frame(title, parts, legend)


def _x(value: float, last: float) -> float:
    return LEFT + value / (last or 1) * (WIDTH - LEFT - RIGHT)


def _curve(series: Series, axis: Axis, last: float) -> str:
    places = [(_x(x, last), axis.y(y), y) for x, y in series.points if math.isfinite(y)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    dots = ""
    if series.dots:
        dots = "".join(
            f'<circle class="{series.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{number(v)}</title></circle>'
            for x, y, v in places
        )
    return f'<polyline class="{series.kind}" points="{line}"/>{dots}'
