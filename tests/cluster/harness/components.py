"""The cluster's programs: each with a log, and a record by which it can be stopped and started again by name."""

from __future__ import annotations

import signal
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from harness.world import Process, World

START_SECONDS = 120.0
STOP_SECONDS = 60.0  # the API server takes its time


@dataclass
class Component:
    """One program."""

    command: list[str]
    env: dict[str, str]
    process: Process
    ready: str = ""  # a URL that answers when it can be used


@dataclass
class Components:
    """All of them, by name."""

    world: World
    logs: Path
    certificate: Path  # of the authority that the API server's certificate comes from
    changed: Callable[[], None]
    running: dict[str, Component] = field(default_factory=dict)

    def start(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None, *, ready: str = ""
    ) -> None:
        """Start one, and wait until the URL `ready` answers.

        Raises:
            ClusterError: it does not become ready; the message shows the end of its log.

        """
        words = [str(word) for word in command]
        process = self.world.start(words, log=self.logs / f"{name}.log", env=env or {})
        self.running[name] = Component(words, dict(env or {}), process, ready)
        self.changed()
        end = time.monotonic() + START_SECONDS
        while ready and not _answers(ready, self.certificate):
            died = not process.alive()
            if died or time.monotonic() > end:
                what = "ended as it started" if died else f"is not ready after {START_SECONDS:.0f} s"
                raise ClusterError(f"{name} {what}. The end of {self.logs}/{name}.log:\n{self.tail(name)}")
            time.sleep(0.1)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop one, and wait for its end: its port is free then. SIGKILL gives it no time."""
        process = self.running[name].process
        process.send(signal.SIGCONT)
        process.send(number)
        if not process.wait(STOP_SECONDS):
            raise ClusterError(f"{name} does not end: {self.tail(name)}")

    def restart(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop one, by the signal `number`, and start it again."""
        self.stop(name, number)
        self.start_again(name)

    def start_again(self, name: str) -> None:
        """Start one that was stopped."""
        component = self.running[name]
        self.start(name, component.command, component.env, ready=component.ready)

    def pause(self, name: str) -> None:
        """Let it hang: connections stay open and nobody answers."""
        self.running[name].process.send(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """End a pause."""
        self.running[name].process.send(signal.SIGCONT)

    def tail(self, name: str, lines: int = 15) -> str:
        """Return the end of a log."""
        path = self.logs / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def _answers(url: str, certificate: Path) -> bool:
    """Tell whether a URL answers with success."""
    trusted = ssl.create_default_context(cafile=str(certificate)) if url.startswith("https:") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted))
    try:
        with opener.open(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
