"""SIGTERM and SIGINT: note them, and stop at the next step from which training can go on."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@dataclass
class Stop:
    """`signal` is the name of the signal that came, None while none did."""

    signal: str | None = None


@contextmanager
def noticing_signals(patience: float) -> Iterator[Stop]:
    """Note SIGTERM and SIGINT instead of ending on them; a second one ends at once, as before.

    What has not come to its next step `patience` seconds after the first, because the store does not answer, say, is
    ended too: whoever sent the signal will not wait for long either.
    """
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}

    def note(number: int, _frame: FrameType | None) -> None:
        stop.signal = signal.Signals(number).name
        signal.signal(number, before[signal.Signals(number)])
        signal.setitimer(signal.ITIMER_REAL, patience)

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted(
            f"Stopped by {stop.signal}; no step ended in the {patience:g} s after it came. Start again to go on from "
            "the last checkpoint."
        )

    signal.signal(signal.SIGALRM, end)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
