"""Starts programs in processes that fork from one which has torch and transformers loaded already.

workers = Workers(folder)
worker = workers.start("collect", file, "--all", fault=Fault("after record", 3))
assert worker.wait() == -signal.SIGKILL
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fault_worker
from fault_worker import Task

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

SUPPORT = Path(__file__).parent
# One thread each: what has threads cannot be forked, and the tests share the cores.
ENVIRONMENT = {
    "PYTHONPATH": f"{SUPPORT.parents[1] / 'jobs'}:{SUPPORT}",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclass
class Worker:
    """A program that runs, or ran, in a process of its own."""

    process: ForkServerProcess
    folder: Path

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit code, negative for a signal."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"still running after {timeout} s:\n{self.output}\n{self.passages}")
        return self.process.exitcode

    @property
    def output(self) -> str:
        """What it printed."""
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    @property
    def passages(self) -> list[str]:
        """The points that it has passed, in order."""
        file = self.folder / "passages"
        return file.read_text().splitlines() if file.exists() else []

    def until(self, point: str, times: int = 1, timeout: float = 30.0) -> None:
        """Wait until it has passed `point` so often."""
        end = time.monotonic() + timeout
        while self.passages.count(point) < times:
            if not self.process.is_alive() or time.monotonic() > end:
                raise AssertionError(f"never came to {point!r} {times} times:\n{self.output}\n{self.passages}")
            time.sleep(0.002)

    def until_working(self, timeout: float = 30.0) -> None:
        """Wait until it has passed any point."""
        end = time.monotonic() + timeout
        while not self.passages:
            if not self.process.is_alive() or time.monotonic() > end:
                raise AssertionError(f"never came to work:\n{self.output}")
            time.sleep(0.002)

    def until_stopped(self, timeout: float = 30.0) -> None:
        """Wait until a SIGSTOP has taken effect."""
        end = time.monotonic() + timeout
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > end:
                raise AssertionError(f"was never stopped:\n{self.output}\n{self.passages}")
            time.sleep(0.002)


class Workers:
    """Forks workers; each writes to a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._running: list[ForkServerProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pytest", "fault_worker"])
        before = dict(os.environ)
        os.environ.update(ENVIRONMENT)
        try:
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def start(self, *arguments: object, **options: Any) -> Worker:
        """Start `kubesae ARGUMENTS`, with the AWS settings of now; `options` are fields of `Task`."""
        folder = self._folder / f"{next(self._numbers):04d}"
        folder.mkdir()
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        task = Task(tuple(map(str, arguments)), folder, environment, **options)
        process = self._context.Process(target=fault_worker.run, args=(task,))
        process.start()
        self._running.append(process)
        return Worker(process, folder)

    def end(self) -> None:
        """Kill what still runs, or is stopped."""
        for process in self._running:
            process.kill()
            process.join()
        self._running.clear()
