"""Progress in a log: a line now and then, none on a terminal with bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.train import console
from kubesae.train.console import Console

if TYPE_CHECKING:
    import pytest


def test_a_log_gets_a_line_when_the_last_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    lines: list[str] = []
    with Console(lines.append).progress("Epoch 1 train", 200) as show:
        for done in range(10, 201, 10):
            now += 4
            show(done, f"loss {done}")
    assert lines == [
        "Epoch 1 train: 40 / 200 (20%) - loss 40",
        "Epoch 1 train: 80 / 200 (40%) - loss 80",
        "Epoch 1 train: 120 / 200 (60%) - loss 120",
        "Epoch 1 train: 160 / 200 (80%) - loss 160",
    ]


def test_a_short_run_prints_no_progress_in_a_log() -> None:
    lines: list[str] = []
    with Console(lines.append).progress("Epoch 1 validation", 3) as show:
        for done in (1, 2, 3):
            show(done, "")
    assert lines == []


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    with Console(lines.append, bars=True).progress("Epoch 1 train", 4, done=1) as show:
        show(4, "loss 0.5")
    shown = capsys.readouterr().out
    assert "Epoch 1 train" in shown
    assert "4/4" in shown
    assert "loss 0.5" in shown
    assert lines == []
