"""Names of points: on nothing else that is drawn, and inside the chart."""

from __future__ import annotations

import random
import re
from itertools import combinations, pairwise

import pytest

from kubesae.page import Series, line_chart
from kubesae.page.axis import HEIGHT, LEFT, WIDTH

NAME = re.compile(r'<text class="point" x="([\d.]+)" y="([\d.]+)" text-anchor="middle">([^<]*)</text>')


def boxes(chart: str) -> list[tuple[float, float, float, float]]:
    """Return left, top, right and bottom of the names, a little narrower than their letters are reckoned."""
    found = [(float(x), float(y), 3.4 * len(name)) for x, y, name in NAME.findall(chart)]
    return [(x - half, y - 9, x + half, y + 2) for x, y, half in found]


def along(chart: str) -> list[tuple[float, float]]:
    """Return many places on the lines of a chart, and its dots."""
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]
    for line in re.findall(r'points="([^"]+)"', chart):
        corners = [tuple(map(float, corner.split(","))) for corner in line.split()]
        for (x0, y0), (x1, y1) in pairwise(corners):
            places += [(x0 + i / 300 * (x1 - x0), y0 + i / 300 * (y1 - y0)) for i in range(301)]
    return places


def chart_of(points: list[tuple[float, float]], frontier: int) -> str:
    names = [f"sae-number-{i}" for i in range(len(points))]
    best, others = sorted(points[:frontier]), points[frontier:]
    series = [
        Series("others", "other", others, dots=True, joined=False, names=names[frontier:]),
        Series("best", "train", best, dots=True, names=names[:frontier]),
    ]
    return line_chart("t", series, x_label="x")


@pytest.mark.parametrize("seed", range(30))
def test_names_lie_on_nothing(seed: int) -> None:
    generator = random.Random(seed)
    chart = chart_of([(generator.uniform(1, 100), generator.uniform(0, 1)) for _ in range(14)], frontier=5)
    names = boxes(chart)
    assert len(names) >= 5
    for (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) in combinations(names, 2):
        assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
    for left, top, right, bottom in names:
        assert left >= LEFT
        assert right <= WIDTH
        assert top >= 0
        assert bottom <= HEIGHT
        assert not any(left < x < right and top < y < bottom for x, y in along(chart))


def test_the_last_point_has_room_for_its_name() -> None:
    assert "sae-number-2" in chart_of([(1, 0.3), (50, 0.2), (51, 0.1)], frontier=3)


def test_every_dot_tells_its_name_even_where_there_is_no_room() -> None:
    chart = chart_of([(50, 0.5)] * 30, frontier=1)
    assert len(NAME.findall(chart)) < 30
    assert len(re.findall(r"<title>sae-number-\d+: 0.5</title>", chart)) == 30
