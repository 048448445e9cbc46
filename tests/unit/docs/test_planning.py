"""docs/planning.md is what the planner prints."""

from __future__ import annotations

from planning_page import PAGE, page


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "run `python tools/planning_page.py`"
