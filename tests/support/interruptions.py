"""Interrupts a program of this process at a chosen call."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class CrashError(Exception):
    """What a SIGKILL leaves behind: nothing is cleaned up."""


def at_call(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, number: int, action: Callable[[], None]) -> None:
    """Run `action` after the call `number` (from 1) of a method."""
    original, calls = getattr(kind, method), 0

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(self, *args, **kwargs)
        if calls == number:
            action()
        return result

    monkeypatch.setattr(kind, method, wrapped)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise CrashError
