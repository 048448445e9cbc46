"""The live table fits the terminal: details beside their line or below, and what there is no room for is counted."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kubesae.cli.shard_table import ShardTable, draw
from kubesae.monitor import Row

ROWS = [
    Row("Prepare: 4,000 tokens"),
    Row("Shard 0: 1,000 / 1,000 tokens", "1.0 MB, complete", "complete"),
    Row("Shard 1: 10 / 1,000 tokens", "1 kB, 5 tokens/s", "running"),
    Row("Shard 2: 0 / 1,000 tokens", "not begun", "waiting"),
    Row("Shard 3: 7 / 1,000 tokens", "1 kB, SILENT", "silent"),
    Row("Total: 1,017 / 4,000 tokens", "1.0 MB"),
    Row("Pilot: passed"),
]


def test_a_wide_terminal_has_the_details_beside() -> None:
    assert draw(ROWS, 60, 40).plain.splitlines() == [
        "Prepare: 4,000 tokens",
        "Shard 0: 1,000 / 1,000 tokens  1.0 MB, complete",
        "Shard 1: 10 / 1,000 tokens     1 kB, 5 tokens/s",
        "Shard 2: 0 / 1,000 tokens      not begun",
        "Shard 3: 7 / 1,000 tokens      1 kB, SILENT",
        "Total: 1,017 / 4,000 tokens    1.0 MB",
        "Pilot: passed",
    ]


def test_a_narrow_terminal_has_them_below() -> None:
    lines = draw(ROWS, 40, 40).plain.splitlines()
    assert lines[1:3] == ["Shard 0: 1,000 / 1,000 tokens", "  1.0 MB, complete"]
    assert max(map(len, lines)) <= 40
    assert len(lines) == 12


@pytest.mark.parametrize(
    ("height", "note", "kept"),
    [
        (8, "... and 1 complete, 1 waiting", ["Shard 1", "Shard 3"]),
        (7, "... and 1 complete, 1 running, 1 waiting", ["Shard 3"]),
        (3, "... and 1 complete, 1 running, 1 silent, 1 waiting", []),
    ],
)
def test_where_there_is_no_room_stragglers_are_the_last_to_go(height: int, note: str, kept: list[str]) -> None:
    lines = draw(ROWS, 60, height).plain.splitlines()
    (found,) = [line for line in lines if line.startswith("... and ")]
    assert sorted(found.removeprefix("... and ").split(", ")) == note.removeprefix("... and ").split(", ")
    assert [line[:7] for line in lines if line.startswith("Shard")] == kept
    assert lines[-2].startswith("Total")
    assert lines.index(found) == len(kept) + 1
    assert len(lines) <= max(height - 2, 4)


def test_what_fits_is_shown_whole() -> None:
    assert len(draw(ROWS, 60, 9).plain.splitlines()) == len(ROWS)


def test_lines_come_above_the_table_and_the_last_look_stays() -> None:
    out = io.StringIO()
    looks = iter([ROWS[:2], ROWS])
    with ShardTable(lambda: next(looks), Console(file=out, width=80, height=40, force_terminal=True)) as table:
        table.print("Shard 1: Model loaded [successfully]")
        table.refresh()
        assert table.pause(3.0) == 3.0
    text = out.getvalue()
    assert "Shard 1: Model loaded [successfully]" in text
    assert text.rindex("Pilot: passed") > text.index("Model loaded")


def test_looking_takes_at_most_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0])
    monkeypatch.setattr("kubesae.cli.shard_table.time.monotonic", lambda: next(clock))
    table = ShardTable(lambda: ROWS, Console(file=io.StringIO()))
    table.refresh()
    assert table.pause(1.0) == 20.0
