"""Stacked bars: each value is as high as it says, on what is below it."""

from __future__ import annotations

import re

import pytest

from kubesae.page import Stack, stacked_bars

BAR = re.compile(
    r'<rect class="(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"( opacity="[\d.]+")?>'
)
KEYS = (("one", "train"), ("two", "val"))


def _bars(*stacks: Stack) -> list[tuple[str, float, float, float, bool]]:
    chart = stacked_bars("Title", KEYS, stacks, x_label="place", note="A note.")
    return [(kind, float(x), float(y), float(h), bool(faint)) for kind, x, y, _, h, faint in BAR.findall(chart)]


def test_values_stand_on_each_other():
    (_, x, low, first, _), (_, other_x, high, second, _) = _bars(Stack("a", (3.0, 1.0)))
    assert x == other_x
    assert first == pytest.approx(3 * second, abs=0.3)
    assert high + second == pytest.approx(low, abs=0.15)


def test_nothing_is_drawn_of_nothing():
    assert [kind for kind, *_ in _bars(Stack("a", (0.0, 2.0)), Stack("b", (2.0, 0.0)))] == ["val", "train"]


def test_stacks_that_stand_back_are_faint():
    assert [faint for *_, faint in _bars(Stack("a", (1.0, 1.0)), Stack("b", (1.0, 1.0), faint=True))] == [
        False,
        False,
        True,
        True,
    ]


def test_every_bar_tells_all_values_of_its_stack():
    chart = stacked_bars("Title", KEYS, [Stack("<a>", (3.0, 1.5))], x_label="place", note="")
    assert chart.count("<title>&lt;a&gt;: one 3, two 1.5</title>") == 2
