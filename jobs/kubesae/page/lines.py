"""Curves and points as SVG text: no library, no script; colours are the page's, so light and dark both work."""

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
from kubesae.page.labels import Point, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

_ROOM = 1.2
"""how much further the x axis goes than the last point, where points have names"""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve, or points.

    Attributes:
        label: in the legend.
        kind: CSS class: train, val or other.
        points: (x, y); of a curve in order of x.
        dots: whether each point is marked.
        joined: whether a line joins the points.
        names: of the points: a dot tells its own when pointed at, and it stands beside it where there is room.

    """

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    joined: bool = True
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Dot:
    """A finite point: where it is drawn, its value and its name."""

    x: float
    y: float
    value: float
    name: str


def line_chart(title: str, series: Sequence[Series], *, x_label: str, log: bool = False) -> str:
    """Return a figure with a chart of `series`; `log` draws y on a logarithmic scale where all of it is above 0.

    Names of points: those of the last series choose their places first.
    """
    drawn = [s for s in series if s.points]
    values = [y for s in drawn for _, y in s.points if math.isfinite(y)]
    if not values:
        return ""
    axis = Axis.over(values, log=log and min(values) > 0)
    last = max(x for s in drawn for x, _ in s.points) * (_ROOM if any(s.names for s in drawn) else 1.0)
    placed = [(s, _placed(s, axis, last)) for s in drawn]
    parts = [grid_line(axis, tick) for tick in axis.ticks]
    parts += [x_tick(_x(x, last), x) for x in nice_ticks(0, last)]
    parts.append(axes.x_label(x_label))
    parts += [_line(s, dots) for s, dots in placed if s.joined]
    parts += [_dot(s, dot) for s, dots in placed if s.dots for dot in dots]
    points = [Point(dot.x, dot.y, dot.name) for s, dots in reversed(placed) if s.dots for dot in dots]
    parts.append(labels(points, [[(dot.x, dot.y) for dot in dots] for s, dots in placed if s.joined]))
    return frame(title, parts, "".join(_key(s) for s in drawn if s.label))


def _x(value: float, last: float) -> float:
    return LEFT + value / (last or 1) * (WIDTH - LEFT - RIGHT)


def _placed(series: Series, axis: Axis, last: float) -> list[_Dot]:
    names = series.names or [""] * len(series.points)
    points = zip(series.points, names, strict=True)
    return [_Dot(_x(x, last), axis.y(y), y, name) for (x, y), name in points if math.isfinite(y)]


def _line(series: Series, dots: Sequence[_Dot]) -> str:
    points = " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in dots)
    return f'<polyline class="{series.kind}" points="{points}"/>'


def _dot(series: Series, dot: _Dot) -> str:
    told = f"{dot.name}: {number(dot.value)}" if dot.name else number(dot.value)
    place = f'cx="{dot.x:.1f}" cy="{dot.y:.1f}" r="3.5"'
    return f'<circle class="{series.kind}" {place}><title>{escape(told)}</title></circle>'


def _key(series: Series) -> str:
    shape = "" if series.joined else " dot"
    return f'<span class="key {series.kind}{shape}">{escape(series.label)}</span>'
