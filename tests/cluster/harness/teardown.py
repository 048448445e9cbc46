"""Take a cluster down without a trace, whatever state it is in."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from harness import cgroups, network
from harness.state import State, locked
from harness.world import CNI_CACHE, World

if TYPE_CHECKING:
    from harness.instance import Instance

_KERNEL = Path("/proc/sys")
# The kubelet sets these for the whole machine.
_SET_BY_KUBELET = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")


def kernel_settings() -> dict[str, str]:
    """Return the settings that the kubelet changes."""
    return {name: (_KERNEL / name).read_text().strip() for name in _SET_BY_KUBELET}


def down(instance: Instance, *, keep_objects: bool = False) -> bool:
    """Take it down; tell whether there was anything. `keep_objects`: what the S3 server holds stays."""
    with locked(instance):
        there = instance.state.exists()
        take_down(instance, keep_objects=keep_objects)
        return there


def take_down(instance: Instance, *, keep_logs: bool = False, keep_objects: bool = False) -> None:
    """Do it, under the lock."""
    state = State.read(instance)
    if state:
        if state.init:
            World(state.init).end()
        for name, value in state.kernel.items():
            if (_KERNEL / name).read_text().strip() != value:
                (_KERNEL / name).write_text(value)
        network.remove(instance)
        cgroups.remove(instance)
        with contextlib.suppress(OSError):  # somebody else's results lie there too
            CNI_CACHE.rmdir()
        instance.state.unlink()
    if not keep_objects:
        shutil.rmtree(instance.objects, ignore_errors=True)
    if instance.run.exists():
        for entry in instance.run.iterdir():
            if keep_logs and entry == instance.logs:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not keep_logs:
            instance.run.rmdir()
