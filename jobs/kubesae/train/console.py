"""What people see of a training: a progress bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubesae.train.metrics import Line

# Seconds between two lines of progress in a log.
_INTERVAL = 15.0


class Console:
    """Where one rank's lines go; `say` takes a line, `bars` says that there is a terminal to draw on.

    `measured` takes the SAE's name and every line of its metrics as it is logged (see `metrics`).
    """

    def __init__(
        self, say: Callable[[str], None], *, bars: bool = False, measured: Callable[[str, Line], None] | None = None
    ) -> None:
        """Print through `say`."""
        self.line = say
        self._measured = measured
        self._bars = bars

    def measured(self, name: str, line: Line) -> None:
        """Take in a line of an SAE's metrics."""
        if self._measured:
            self._measured(name, line)

    @contextmanager
    def progress(self, label: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
        """Show progress towards `total` while the context lasts; call what it gives with (done, what to say of it)."""
        if self._bars:
            with self._bar(label, total, done) as update:
                yield update
            return
        last = time.monotonic()

        def report(done: int, text: str) -> None:
            nonlocal last
            if done < total and time.monotonic() - last >= _INTERVAL:
                last = time.monotonic()
                self.line(f"{label}: {done:,} / {total:,} ({done / total:.0%})" + (f" - {text}" if text else ""))

        yield report

    @contextmanager
    def _bar(self, label: str, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns) as bar:
            task = bar.add_task(label, total=total, completed=done, text="")
            yield lambda done, text: bar.update(task, completed=done, text=text)


def silent(_line: str) -> None:
    """Print nothing: what ranks other than the first do."""
