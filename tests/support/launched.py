"""Trainings that are launched as in a Pod, by real torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import yaml

from kubesae.store import open_store
from small_experiment import VALUES
from small_training import RELU

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

WAIT = 100.0


@dataclass
class Launch:
    """A running `kubesae train-launch`."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def output(self) -> str:
        """What it and its workers have printed."""
        return self.log.read_text()

    def until(self, text: str) -> None:
        """Wait until `text` is printed."""
        end = time.monotonic() + WAIT
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(WAIT)

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def workers(self) -> list[psutil.Process]:
        """Return the workers, as soon as there is one."""
        end = time.monotonic() + WAIT
        while True:
            found = [child for child in psutil.Process(self.process.pid).children() if _is_worker(child)]
            if found:
                return found
            assert time.monotonic() < end, self.output
            time.sleep(0.05)

    def end(self) -> None:
        """Leave no process behind."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for child in family:
                child.kill()
            self.process.wait()


@dataclass
class Place:
    """Collected data, and where trainings on it are launched."""

    folder: Path
    data: str
    started: list[Launch] = field(default_factory=list)

    @property
    def output(self) -> Store:
        """Where SAEs go."""
        return open_store(str(self.folder / "output"))

    def launch(self, *arguments: str, epochs: int = 2, **environment: str) -> Launch:
        """Start `kubesae train-launch`."""
        file = self.folder / "experiment.yaml"
        sae = RELU | {"name": "small", "epochs": epochs}
        file.write_text(yaml.safe_dump(VALUES | {"data": self.data, "output": self.output.url, "sae": [sae]}))
        log = self.folder / f"launch-{len(self.started)}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
        paths = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "kubesae", "train-launch", str(file), *arguments]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, text=True, env=kept | paths | environment)
        self.started.append(Launch(process, log))
        return self.started[-1]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "kubesae.train" in process.cmdline()
    except psutil.NoSuchProcess:  # another child, which ended meanwhile (a zombie is one, too)
        return False
