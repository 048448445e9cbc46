"""Charts as SVG text: no library, no script, colours from the page's CSS so that light and dark both work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 14, 34
_TICKS = 5
# About as wide is a letter of a point's name.
_LETTER = 6.5


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


def line_chart(title: str, series: Sequence[Series], *, x_label: str, log: bool = False) -> str:
    """Return a figure with a chart of `series`; `log` draws y on a logarithmic scale where all of it is above 0."""
    drawn = [s for s in series if s.points]
    values = [y for s in drawn for _, y in s.points if math.isfinite(y)]
    if not values:
        return ""
    log = log and min(values) > 0
    axis = _Axis.over(values, log=log)
    last = max(x for s in drawn for x, _ in s.points)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    parts += [_grid_line(axis, tick) for tick in axis.ticks]
    parts += [_x_tick(x, last) for x in _nice_ticks(0, last)]
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    parts += [_curve(s, axis, last) for s in drawn]
    parts.append(_labels(drawn, axis, last))
    parts.append("</svg>")
    legend = "".join(f'<span class="key {s.kind}">{escape(s.label)}</span>' for s in drawn if s.label)
    return f"<figure><figcaption>{escape(title)}<span>{legend}</span></figcaption>{''.join(parts)}</figure>"


@dataclass(frozen=True, slots=True)
class _Axis:
    """The y axis: its ends in drawing units (the logarithm where `log`), and its ticks in data units."""

    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], *, log: bool) -> _Axis:
        """Return an axis that shows `values`."""
        low, high = min(values), max(values)
        if log:
            ticks = _log_ticks(low, high)
            return cls(math.log10(min(low, ticks[0])), math.log10(max(high, ticks[-1])) + 1e-9, log=True, ticks=ticks)
        ticks = _nice_ticks(min(0.0, low), high)
        return cls(ticks[0], max(high, ticks[-1]), log=False, ticks=ticks)

    def y(self, value: float) -> float:
        """Return where `value` is drawn."""
        place = math.log10(value) if self.log else value
        return HEIGHT - BOTTOM - (place - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def _x(value: float, last: float) -> float:
    return LEFT + value / (last or 1) * (WIDTH - LEFT - RIGHT)


def _places(series: Series, axis: _Axis, last: float) -> list[tuple[float, float, float, str]]:
    """Return where each finite point is drawn, with its value and its name."""
    names = series.names or [""] * len(series.points)
    return [
        (_x(x, last), axis.y(y), y, name) for (x, y), name in zip(series.points, names, strict=True) if math.isfinite(y)
    ]


def _curve(series: Series, axis: _Axis, last: float) -> str:
    places = _places(series, axis, last)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in places)
    parts = [f'<polyline class="{series.kind}" points="{line}"/>'] if series.joined else []
    if series.dots:
        parts += [
            f'<circle class="{series.kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>'
            f"{escape(f'{name}: {_number(value)}' if name else _number(value))}</title></circle>"
            for x, y, value, name in places
        ]
    return "".join(parts)


def _labels(drawn: Sequence[Series], axis: _Axis, last: float) -> str:
    """Return the names of points, where there is room for them; those of the last series have the first choice."""
    places = [place for series in reversed(drawn) for place in _places(series, axis, last)]
    taken = [_Box(x - 4, y - 4, x + 4, y + 4) for x, y, *_ in places]
    labels = []
    for x, y, _, name in places:
        width = _LETTER * len(name)
        for left, base, anchor in ((x + 7, y - 5, "start"), (x - 7 - width, y - 5, "end"), (x + 7, y + 13, "start")):
            box = _Box(left, base - 9, left + width, base + 2)
            if name and box.left >= LEFT and box.right <= WIDTH and box.top >= 0 and not any(map(box.meets, taken)):
                at = left if anchor == "start" else left + width
                labels.append(
                    f'<text class="point" x="{at:.1f}" y="{base:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
                )
                taken.append(box)
                break
    return "".join(labels)


@dataclass(frozen=True, slots=True)
class _Box:
    """A place on the drawing that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether the two overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def _grid_line(axis: _Axis, tick: float) -> str:
    y = axis.y(tick)
    return (
        f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
    )


def _x_tick(tick: float, last: float) -> str:
    return f'<text class="axis" x="{_x(tick, last):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{_number(tick)}</text>'


def _nice_ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers over `low` to `high`; none lies above `high`, except where there is only one."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / _TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _TICKS)
    first, last = math.floor(low / step), math.floor(high / step + 1e-9)
    ticks = [i * step for i in range(first, last + 1)]
    return ticks if len(ticks) > 1 else [first * step, (first + 1) * step]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return about five ticks in the range at round factors of the powers of ten, or the powers around it."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= _TICKS - 1:
            break
    return inside if len(inside) > 1 else [10.0 ** powers[0], 10.0 ** (powers[0] + 1)]


def _number(value: float) -> str:
    if 0 < abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}k" if abs(value) >= 1e4 else f"{value:.4g}"
