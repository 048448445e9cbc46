"""What stands in pages, and the ticks of their charts."""

from __future__ import annotations

import pytest

from kubesae.page import bullets, pairs, paragraph, section, table, tiles
from kubesae.page.axis import log_ticks, number


def test_everything_is_escaped() -> None:
    made = (
        bullets(["<x>"]),
        pairs([("<x>", "<x>")]),
        paragraph("<x>"),
        section("<x>"),
        table(["<x>"], [["<x>"]], title="<x>"),
        tiles([("<x>", "<x>")]),
    )
    assert not any("<x>" in html for html in made)


def test_words_begin_on_the_left_and_numbers_end_on_the_right() -> None:
    shown = table(["name", "kind", "L0", "CE"], [["a", "topk", "8.0", "-"], ["b", "", "9.0", "0.9"]])
    assert shown.count('class="words">topk') == 1
    assert "<td>8.0</td><td>-</td>" in shown


def test_an_empty_table_has_its_head() -> None:
    assert "<th>a</th><th>b</th>" in table(["a", "b"], [])


def test_many_tiles_stand_in_lines_of_four() -> None:
    assert "many" not in tiles([("1", "a")] * 6)
    assert "many" in tiles([("1", "a")] * 8)


@pytest.mark.parametrize(("low", "high"), [(20.5, 48.0), (0.1, 0.9), (3.0, 400.0), (1e-5, 1.0), (43.9, 44.1)])
def test_a_logarithmic_axis_has_ticks_in_its_range(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert len(ticks) >= 2
    assert low <= ticks[0] < ticks[-1] <= high


def test_numbers_are_short() -> None:
    numbers = (0.0, 1e-3, 8e-4, 2.5e-5, 12345.0, 3e6)
    assert [number(value) for value in numbers] == ["0", "0.001", "0.0008", "2.5e-5", "12.35k", "3M"]
