"""What programs print: plain lines that a person reads with `kubectl logs`, or JSON lines for collectors of logs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

JSON = False
HELD: list[str] | None = None


def use_json() -> None:
    """Print JSON lines from now on."""
    global JSON  # noqa: PLW0603 - one process, one log format, chosen once at start-up
    JSON = True


def hold_complaints() -> list[str]:
    """Print no complaint from now on; they come into the list that is returned."""
    global HELD  # noqa: PLW0603 - one process, one console
    HELD = []
    return HELD


def say(line: str) -> None:
    """Print one line of progress to standard output, at once."""
    _print(line, "info", sys.stdout)


def complain(line: str) -> None:
    """Print what went wrong to standard error."""
    _print(line, "error", sys.stderr)


def _print(line: str, level: str, stream: object) -> None:
    if HELD is not None and level == "error":
        HELD.append(line)
        return
    if JSON:
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "level": level, "message": line}, ensure_ascii=False)
    print(line, file=stream, flush=True)  # type: ignore[call-overload]


class LogHandler(logging.Handler):
    """Sends the project's log records to the console."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        _print(self.format(record), record.levelname.lower(), sys.stderr)
