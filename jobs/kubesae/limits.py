"""What this process may use of the machine: CPUs and memory, within the limits of its control groups.

In a container `/proc` shows the whole machine; what a Pod may use stands in the files of its cgroup and those above.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/")
REPLICA_SHARE = 0.8
"""share of a GPU's memory up to which weights are held by each GPU of a slot: the rest is for forward passes"""
_UNLIMITED = 1 << 60  # version 1 writes about 2^63 where there is no limit


def cpu_limit(root: Path = ROOT) -> float | None:
    """CPUs that the control groups allow; None: no limit."""
    limits = []
    for folder in _folders(root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the control groups allow; None: no limit."""
    limits = []
    for folder in _folders(root, "memory"):
        text = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if text.isdigit() and int(text) < _UNLIMITED:
            limits.append(int(text))
    return min(limits, default=None)


def memory(root: Path = ROOT) -> tuple[int, int]:
    """Bytes of memory that there are for this process, and that are available now."""
    lines = (line.split() for line in _read(root / "proc/meminfo").splitlines())
    machine = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if len(line) > 1}
    total, available = machine["MemTotal"], machine["MemAvailable"]
    limit = memory_limit(root)
    if limit is None or limit >= total:
        return total, available
    return limit, min(available, limit - _used(root))


def _used(root: Path) -> int:
    """Bytes that the control group uses and could not give back: pages of files that nobody reads are not counted."""
    for folder in _folders(root, "memory"):
        if (text := _read(folder / "memory.current")).isdigit():
            lines = (line.partition(" ") for line in _read(folder / "memory.stat").splitlines())
            return int(text) - sum(int(number) for name, _, number in lines if name == "inactive_file")
    return 0


def cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """Names of what the CPU can do, as the kernel spells them."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def cpus() -> int:
    """CPUs that this process may be scheduled on."""
    return len(os.sched_getaffinity(0))


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's control group and of those above, for version 2 and for the controller of version 1."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mount = root / "sys/fs/cgroup" / names
        below = Path(path.lstrip("/"))
        for part in (below, *below.parents) if path != "/" else (below,):
            yield mount / part


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
