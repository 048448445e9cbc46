"""Names beside the points of a chart: each where there is room, on no other name, no point and no line."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from kubesae.page.axis import BOTTOM, HEIGHT, LEFT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Place = tuple[float, float]

# About as wide is a letter, and so far it goes above and below the line that it stands on.
_LETTER, _ASCENT, _DESCENT = 7.0, 10.0, 3.0
_DOT = 4.5
"""half the room that a point takes"""


@dataclass(frozen=True, slots=True)
class Point:
    """A point where it is drawn, with its name, which may be empty."""

    x: float
    y: float
    name: str


def labels(points: Sequence[Point], lines: Sequence[Sequence[Place]]) -> str:
    """Return the names of points as SVG; the first ones choose first, and what finds no room is left out.

    Args:
        points: all points that are drawn.
        lines: the places that each line of the chart joins.

    """
    taken = [_Box(point.x - _DOT, point.y - _DOT, point.x + _DOT, point.y + _DOT) for point in points]
    segments = [ends for line in lines for ends in pairwise(line)]
    shown = []
    for point in points:
        if not point.name:
            continue
        box = next((box for box in _around(point) if _is_free(box, taken, segments)), None)
        if box is not None:
            taken.append(box)
            shown.append(
                f'<text class="point" x="{(box.left + box.right) / 2:.1f}" y="{box.bottom - _DESCENT:.1f}" '
                f'text-anchor="middle">{escape(point.name)}</text>'
            )
    return "".join(shown)


@dataclass(frozen=True, slots=True)
class _Box:
    """A place on the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether the two overlap."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def is_crossed(self, start: Place, end: Place) -> bool:
        """Whether the line from `start` to `end` runs through it (Liang and Barsky)."""
        first, last = 0.0, 1.0
        sides = ((self.left, self.right), (self.top, self.bottom))
        for origin, goal, (low, high) in zip(start, end, sides, strict=True):
            if origin == goal:
                if not low < origin < high:
                    return False
                continue
            enters, leaves = sorted(((low - origin) / (goal - origin), (high - origin) / (goal - origin)))
            first, last = max(first, enters), min(last, leaves)
        return first < last


def _around(point: Point) -> Iterator[_Box]:
    """Yield where a name can stand: at the four corners of its point, then at its sides, above and below."""
    wide, high = _LETTER * len(point.name), _ASCENT + _DESCENT
    right, left, middle = point.x + 6, point.x - 6 - wide, point.x - wide / 2
    above, below = point.y - 3 - high, point.y + 3
    corners = ((right, above), (left, above), (right, below), (left, below))
    sides = ((right, point.y - high / 2), (left, point.y - high / 2), (middle, above - 3), (middle, below + 3))
    for x, y in (*corners, *sides):
        yield _Box(x, y, x + wide, y + high)


def _is_free(box: _Box, taken: Sequence[_Box], segments: Sequence[tuple[Place, Place]]) -> bool:
    inside = box.left >= LEFT and box.right <= WIDTH and box.top >= 0 and box.bottom <= HEIGHT - BOTTOM
    return inside and not any(map(box.meets, taken)) and not any(box.is_crossed(*ends) for ends in segments)
