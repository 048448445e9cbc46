"""How far a collection is, drawn again and again on a terminal: for `collect` and for `monitor --watch`.

With room for it, the details of a shard stand beside its line, else below. Where there are more shards than lines,
those that are running come first and the rest are counted.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kubesae.monitor import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

# Looking takes listings, which cost time and, on some stores, money: at most this share of the time goes into it.
BUSY = 0.1
_STYLES = {"complete": "green", "slow": "yellow", "silent": "bold yellow", "waiting": "dim"}
# Which shards are left out first where there is no room for all.
_NEWS = {"complete": 0, "waiting": 0, "running": 1, "slow": 2, "silent": 2}


class ShardTable:
    """Shows the rows that `look` returns."""

    def __init__(self, look: Callable[[], Iterable[Row]], console: Console | None = None) -> None:
        """Show nothing yet."""
        self._look = look
        self._live = Live(console=console or Console(highlight=False), auto_refresh=False, vertical_overflow="visible")
        self._took = 0.0

    def __enter__(self) -> Self:
        """Begin to show."""
        self.refresh()
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self._live.stop()

    def print(self, line: str) -> None:
        """Print a line above the table."""
        self._live.console.print(line, highlight=False, markup=False)

    def refresh(self) -> None:
        """Look once, and draw it."""
        began = time.monotonic()
        rows = list(self._look())
        self._took = time.monotonic() - began
        size = self._live.console.size
        self._live.update(draw(rows, size.width, size.height), refresh=True)

    def pause(self, seconds: float) -> float:
        """Return how long to wait before looking again: `seconds`, or more where a look takes long."""
        return max(seconds, self._took / BUSY)


def draw(rows: Sequence[Row], width: int, height: int) -> Text:
    """Return `rows` as they fit a terminal."""
    first = max((len(row.text) for row in rows if row.details), default=0)
    beside = first + 2 + max(len(row.details) for row in rows) <= width
    text = Text()
    for row in _fold(rows, (height - 2) // (1 if beside else 2)):
        lines = [f"{row.text:<{first}}  {row.details}".rstrip()] if beside and row.details else stacked(row)
        text.append("".join(f"{line}\n" for line in lines), _STYLES.get(row.state))
    text.rstrip()
    return text


def stacked(row: Row) -> list[str]:
    """Return a row as plain lines."""
    return [row.text, f"  {row.details}"] if row.details else [row.text]


def _fold(rows: Sequence[Row], room: int) -> list[Row]:
    """Leave out shards, those first that there is least to say of, until a line for them makes it `room` rows."""
    over = len(rows) - room + 1
    shards = [i for i, row in enumerate(rows) if row.state]
    if over <= 1 or not shards:
        return list(rows)
    gone = sorted(shards, key=lambda i: (_NEWS[rows[i].state], -i))[:over]
    left_out = Counter(rows[i].state for i in gone)
    folded = [row for i, row in enumerate(rows) if i not in gone]
    note = Row("... and " + ", ".join(f"{count} {state}" for state, count in left_out.items()))
    folded.insert(shards[-1] + 1 - len(gone), note)
    return folded
