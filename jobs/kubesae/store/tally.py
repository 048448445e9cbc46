"""What this process's calls on stores went through, besides the lines in its log: for metrics.

Counts are written by many threads. Each is one addition under the interpreter's lock, and a count that is read a moment
too early does no harm.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Attempts that failed and were made again, by kind of failure; and calls that were given up."""

    retries: Counter[str] = field(default_factory=Counter)
    given_up: int = 0


TALLY = Tally()
