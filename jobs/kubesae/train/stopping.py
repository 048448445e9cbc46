"""SIGTERM and SIGINT: note them, and stop at the next step from which training can go on."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@dataclass
class Stop:
    """`signal` is the name of the signal that came, None while none did."""

    signal: str | None = None


@contextmanager
def noticing_signals() -> Iterator[Stop]:
    """Note SIGTERM and SIGINT instead of ending on them; a second one ends at once, as before."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
