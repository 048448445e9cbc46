"""The namespaces that a cluster lives in: processes, mounts and network of its own, held by one small process.

Whatever happens inside (containers and their shims, overlay mounts, bridges, nftables, volumes) ends when that one
process is killed, because the kernel then kills every process of the namespace and drops its mounts and devices.
Nothing has to be searched for, and a cluster that crashed half-way up is taken down like any other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ClusterError
from harness.shell import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.instance import Instance

# Inside, /run/machine/proc shows the machine's process ids: what a shell reads there of itself is its id outside.
_SET_UP = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/machine/proc /run/lock
mount --bind /proc /run/machine/proc
mount -t proc proc /proc
mount --bind "$1/var-log" /var/log
mount --bind "$1/var-lib-cni" /var/lib/cni
read -r pid rest </run/machine/proc/self/stat
echo "$pid" >"$1/init.pid"
shift
exec "$@"
"""
_NEW = ["setsid", "--fork", "unshare", "--mount", "--net", "--pid", "--fork"]
_START = 'read -r pid rest </run/machine/proc/self/stat; echo "$pid" >"$0"; exec "$@"'
_DETACH = 'setsid /bin/sh -c "$0" "$@" &'
_WRITING_ENDS: dict[str, int] = {}  # closed by the kernel when this process ends
CNI_CACHE = Path("/var/lib/cni")  # fixed in the CNI library
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Process:
    """A process that is not mistaken for a later one with the same id."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has this id now."""
        found = _status(pid)
        if found is None:
            raise ClusterError(f"there is no process {pid}")
        return cls(pid, found[1])

    def alive(self) -> bool:
        """Tell whether it still runs."""
        found = _status(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; tell whether it came. A process whose threads still end keeps its ports: that is no end."""
        end = time.monotonic() + seconds
        while (found := _status(self.pid)) and found[1] == self.started:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@dataclass(frozen=True)
class World:
    """The namespaces of one cluster, by the process that holds them."""

    init: Process

    @classmethod
    def make(cls, instance: Instance, init: Path, *, bound: bool) -> World:
        """Make them; `init` is the program that holds them and reaps what ends in them.

        `bound`: they end with this process, however it ends. `init` sees that by a pipe that nobody writes to.
        """
        for name in ("var-log", "var-lib-cni"):
            (instance.run / name).mkdir(parents=True)
        CNI_CACHE.mkdir(parents=True, exist_ok=True)
        log = instance.logs / "world.log"
        reading, _WRITING_ENDS[instance.name] = os.pipe()
        with os.fdopen(reading) as pipe, log.open("wb") as output:
            subprocess.run(
                [*_NEW, "/bin/sh", "-c", _SET_UP, "sh", instance.run, init, *(["bound"] if bound else [])],
                check=True,
                stdin=pipe,
                stdout=output,
                stderr=output,
                env={"PATH": PATH},
            )
        return cls(_read_pid(instance.run / "init.pid", log))

    def enter(self, command: Sequence[str | Path]) -> list[str | Path]:
        """Return the command that runs `command` inside, and waits for it."""
        return ["nsenter", f"--target={self.init.pid}", "--mount", "--net", "--pid", "--", *command]

    def run(self, command: Sequence[str | Path], *, timeout: float = 60) -> str:
        """Run a command inside and return what it writes."""
        return run(self.enter(command), env={"PATH": PATH}, timeout=timeout)

    def start(self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str]) -> Process:
        """Start a program inside that runs on when this one ends."""
        pid_file = log.with_suffix(".pid")
        pid_file.unlink(missing_ok=True)
        with log.open("ab") as output:
            subprocess.run(
                self.enter(["/bin/sh", "-c", _DETACH, _START, pid_file, *command]),
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"PATH": PATH, **env},
            )
        return _read_pid(pid_file, log)

    def end(self) -> None:
        """End everything inside."""
        self.init.send(signal.SIGKILL)
        if not self.init.wait(60):
            raise ClusterError(f"the cluster's first process ({self.init.pid}) does not end")


def _status(pid: int) -> tuple[str, int] | None:
    """Return a process's state, and when it started, in ticks after the machine did; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[19])


def _read_pid(path: Path, log: Path) -> Process:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        text = path.read_text() if path.exists() else ""
        if text.endswith("\n"):
            return Process.of(int(text))
        time.sleep(0.01)
    raise ClusterError(f"a process did not start: {log.read_text()[-2000:]}")
