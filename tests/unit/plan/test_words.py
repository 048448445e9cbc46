"""Numbers and rows as people read them."""

from __future__ import annotations

import pytest

from kubesae.plan import table_lines
from kubesae.plan.words import aligned, dollars, merged_runs, short, summary
from planned import planned


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1500, "1.5 k"),
        (999_999_999, "1 B"),
        (32.76e9, "32.8 B"),
        (1_026_408_209_408, "1.026 T"),
    ],
)
def test_short_numbers(count, text):
    assert short(count) == text


def test_dollars_have_cents_where_these_count():
    assert [dollars(amount) for amount in (0, 9.5, 99.99, 333.2, 1271)] == [
        "$0.00",
        "$9.50",
        "$99.99",
        "$333",
        "$1,271",
    ]


def test_layers_that_differ_in_their_window_alone_are_one_row():
    runs = list(merged_runs(planned("gemma-2-9b", layers=[20])))
    assert [(run.first, run.last, run.loaded) for run in runs] == [(-1, -1, True), (0, 20, True), (21, 41, False)]


def test_columns_stand_under_each_other():
    assert list(aligned([("a", "1"), ("bcd", "234")], frozenset({0}))) == ["a      1", "bcd  234"]


def test_every_line_fits_the_terminal_but_for_tables():
    report = planned("kimi-k2-thinking", layers=[45])
    narrow = list(table_lines(report, 80))
    tables = {line for line in narrow if line.startswith("  ") and "  " in line.strip()}
    assert all(len(line) <= 80 for line in narrow[4:] if line not in tables and not line.startswith(("Model", "Cost")))


def test_the_summary_says_when_nothing_fits():
    report = planned("kimi-k2-thinking", layers=[45], gpu="l40s")
    assert summary(report) == "It cannot be run as it is: neither engine fits; 14.35 TB to store."
