"""Small disks and little memory, from the kernel itself: a tmpfs with a size, a control group with a limit.

Both need rights that not every machine gives; `Unavailable` says which is missing.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_GROUPS = Path("/sys/fs/cgroup")


class Unavailable(Exception):  # noqa: N818 - a reason to skip
    """This machine does not let us."""


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Give `folder` on a disk of `size` bytes of its own. Raises Unavailable where mounting is not allowed."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def resize(folder: Path, size: int) -> None:
    """Change the size of a disk of `small_disk`."""
    _mount("-o", f"remount,size={size}", folder)


def _mount(*arguments: object) -> None:
    try:
        done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unavailable("there is no mount command") from error
    if done.returncode:
        raise Unavailable(f"a small disk cannot be mounted: {done.stderr.strip()}")


@contextlib.contextmanager
def little_memory(size: int) -> Iterator[Path]:
    """Give the file to which a process writes its number to have `size` bytes of memory and no more.

    Raises Unavailable where control groups, of version 2 or 1, are not ours to make.
    """
    version_2 = (_GROUPS / "cgroup.controllers").exists()
    group = (_GROUPS if version_2 else _GROUPS / "memory") / f"kubesae-test-{secrets.token_hex(4)}"
    try:
        if version_2:
            (_GROUPS / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / ("memory.max" if version_2 else "memory.limit_in_bytes")).write_text(str(size))
        with contextlib.suppress(FileNotFoundError):  # no accounting of swap
            (group / ("memory.swap.max" if version_2 else "memory.memsw.limit_in_bytes")).write_text(
                "0" if version_2 else str(size)
            )
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        raise Unavailable(f"no memory limit can be set: {error}") from error
    try:
        yield group / "cgroup.procs"
    finally:
        group.rmdir()
