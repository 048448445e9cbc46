"""The cgroup that all Pods lie in: made before the kubelet starts, removed with everything below it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ClusterError

if TYPE_CHECKING:
    from harness.instance import Instance

_ROOT = Path("/sys/fs/cgroup")


def make(instance: Instance) -> None:
    """Make it in every hierarchy (cgroup v1 has one for each resource, v2 one for all)."""
    for root in _hierarchies():
        group = root / instance.cgroup
        group.mkdir(exist_ok=True)
        # v1 lets nothing into a cpuset that has no processors yet; a new one starts with none
        for name in ("cpuset.cpus", "cpuset.mems"):
            if root != _ROOT and (root / name).exists():
                (group / name).write_text((root / name).read_text())


def remove(instance: Instance) -> None:
    """Remove it; its processes have ended before."""
    for root in _hierarchies():
        group = root / instance.cgroup
        folders = [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]
        for folder in folders:
            _remove(folder)


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [path for path in _ROOT.iterdir() if path.is_dir() and not path.is_symlink()]


def _remove(folder: Path) -> None:
    end = time.monotonic() + 10
    while folder.exists():
        try:
            folder.rmdir()
        except OSError as error:  # a process that was killed just now is counted for a moment longer
            if time.monotonic() > end:
                raise ClusterError(f"the cgroup {folder} cannot be removed: {error}") from error
            time.sleep(0.05)
