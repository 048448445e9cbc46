"""What is to be looked at, and when: each key once, however often it was named, and by one worker at a time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubesae_operator.api import Key

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


class WorkQueue:
    """Keys by when they are due. Thread-safe."""

    def __init__(self) -> None:
        """Begin empty."""
        self._due: dict[Key, float] = {}
        self._taken: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Have `key` looked at in `delay` seconds, or earlier if it is due then."""
        with self._changed:
            time_due = time.monotonic() + delay
            self._due[key] = min(time_due, self._due.get(key, time_due))
            self._changed.notify()

    def take(self) -> Key | None:
        """Return the key that is due, after waiting for one; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                free = [(due, key) for key, due in self._due.items() if key not in self._taken]
                due, key = min(free, default=(float("inf"), ("", "")))
                if due <= now:
                    del self._due[key]
                    self._taken.add(key)
                    return key
                self._changed.wait(min(due - now, LONGEST_PAUSE))
            return None

    def done(self, key: Key) -> None:
        """Say that the work on `key` is over."""
        with self._changed:
            self._taken.discard(key)
            self._failures.pop(key, None)
            self._changed.notify()

    def failed(self, key: Key) -> float:
        """Say that the work on `key` has failed; it is due again after a pause, which is returned."""
        with self._changed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            self._taken.discard(key)
        pause = min(FIRST_PAUSE * 2.0 ** min(count - 1, 10), LONGEST_PAUSE)
        self.add(key, pause)
        return pause

    def close(self) -> None:
        """End every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
