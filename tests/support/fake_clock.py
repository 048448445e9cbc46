"""A clock that stands in for a module's `time`.

monkeypatch.setattr(module, "time", Clock())
"""

from __future__ import annotations


class Clock:
    """Time goes on when a test says so: `clock.now += 10`."""

    def __init__(self, now: float = 1000.0) -> None:
        """Begin at `now`, in seconds."""
        self.now = now

    def monotonic(self) -> float:
        """Return the time."""
        return self.now
