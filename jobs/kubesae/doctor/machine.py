"""Checks of the machine: Python, CPUs, memory, folders and their disks. Nothing is written."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae import limits
from kubesae.doctor.check import failed, ok, warning
from kubesae.model.smollm2 import cache_folder
from kubesae.units import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.doctor.check import Check

NEEDED_PYTHON = (3, 11)
LITTLE_MEMORY = 4e9
LITTLE_DISK = 2e9


def python() -> Iterator[Check]:
    """Check the interpreter."""
    found = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info[:2] < NEEDED_PYTHON:
        yield failed("Python", found, "Use Python 3.11 or newer.")
    else:
        yield ok("Python", found)


def cpus() -> Iterator[Check]:
    """Check how many CPUs there are for us."""
    there, limit = limits.cpus(), limits.cpu_limit()
    if limit is None or limit >= there:
        yield ok("CPUs", f"{there}")
    elif limit < 1:
        yield warning("CPUs", f"{limit:g} of {there} (cgroup)", "Raise the CPU limit to one CPU at least.")
    else:
        yield ok("CPUs", f"{limit:g} of {there} (cgroup); `collect.threads` says how many a worker uses")


def memory() -> Iterator[Check]:
    """Check how much memory there is for us."""
    total, available = limits.memory()
    within = " (cgroup)" if total == limits.memory_limit() else ""
    found = f"{size(total)}{within}, {size(available)} available"
    if available < LITTLE_MEMORY:
        yield warning("Memory", found, "Stop other programs, or raise the limit: even small models need a few GB.")
    else:
        yield ok("Memory", found)


def folders() -> Iterator[Check]:
    """Check the folders that libraries and kubesae keep files in: writable, and with room."""
    hub = os.environ.get("HF_HUB_CACHE")
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    yield folder("Hub cache", Path(hub) if hub else home / "hub", "HF_HOME")
    yield folder("kubesae cache", cache_folder(), "KUBESAE_CACHE")
    yield folder("Temporary", Path(os.environ.get("TMPDIR") or "/tmp"), "TMPDIR")  # noqa: S108 - only looked at


def folder(name: str, path: Path, variable: str) -> Check:
    """Check that files can be written to a folder, there or not yet, which the environment's `variable` sets."""
    path = path.expanduser()
    there = existing(path)
    free = shutil.disk_usage(there).free
    found = f"{path}, {size(free)} free"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return failed(name, f"{path} cannot be written", f"Grant this user access to {there}, or set {variable}.")
    if free < LITTLE_DISK:
        return warning(name, found, f"Free some space there, or set {variable} to a folder on a larger disk.")
    return ok(name, found)


def existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
