"""The frame of a chart: its size, the y axis with its grid, round ticks, short numbers."""

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


@dataclass(frozen=True, slots=True)
class Axis:
    """The y axis: its ends in drawing units (the logarithm where `log`), and its ticks in data units."""

    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], *, log: bool) -> Axis:
        """Return an axis that shows `values`."""
        low, high = min(values), max(values)
        if log:
            ticks = log_ticks(low, high)
            return cls(math.log10(min(low, ticks[0])), math.log10(max(high, ticks[-1])) + 1e-9, log=True, ticks=ticks)
        ticks = nice_ticks(min(0.0, low), high)
        return cls(ticks[0], max(high, ticks[-1]), log=False, ticks=ticks)

    def y(self, value: float) -> float:
        """Return where `value` is drawn."""
        place = math.log10(value) if self.log else value
        return HEIGHT - BOTTOM - (place - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def frame(title: str, content: Sequence[str], caption: str = "", note: str = "") -> str:
    """Return a figure with the SVG elements `content`, an HTML `caption` beside its title, and `note`, a text below."""
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(content)}</svg>'
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<figure><figcaption>{escape(title)}<span>{caption}</span></figcaption>{svg}{below}</figure>"


def x_label(text: str) -> str:
    """Return what the x axis shows, at its right end."""
    return f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(text)}</text>'


def x_tick(x: float, tick: float) -> str:
    """Return the number `tick` below the place `x`."""
    return f'<text class="axis" x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{number(tick)}</text>'


def grid_line(axis: Axis, tick: float) -> str:
    """Return the line of a tick of the y axis, and its number."""
    y = axis.y(tick)
    return (
        f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers over `low` to `high`; none lies above `high`, except where there is only one."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / _TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _TICKS)
    first, last = math.floor(low / step), math.floor(high / step + 1e-9)
    ticks = [i * step for i in range(first, last + 1)]
    return ticks if len(ticks) > 1 else [first * step, (first + 1) * step]


def log_ticks(low: float, high: float) -> list[float]:
    """Return about five ticks in the range: round factors of the powers of ten, round numbers where it is narrow.

    Where there are no two of these, they are the powers around it.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= _TICKS - 1:
            break
    if len(inside) < _TICKS - 2:
        inside = [tick for tick in nice_ticks(low, high) if low <= tick <= high]
    return inside if len(inside) > 1 else [10.0 ** powers[0], 10.0 ** (powers[0] + 1)]


def number(value: float) -> str:
    """Return a number in a few characters."""
    if 0 < abs(value) < 1e-4:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value / 1e3:.4g}k" if abs(value) >= 1e4 else f"{value:.4g}"
