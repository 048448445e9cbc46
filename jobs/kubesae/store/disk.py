"""Files that appear whole or not at all, and what a disk's errors mean to the user."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kubesae.errors import AccessError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY = f".{'[0-9a-f]' * 24}.tmp"
"""pattern of the names of files that are not whole yet"""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn an OSError of the body into an AccessError or a StoreError that names `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise StoreError(f"{path}: the disk is full ({reason}). Free some space and start again.") from error
        if error.errno in _NO_FOLDER:
            raise AccessError(
                f"{path}: cannot be written ({reason}): a file stands where a folder is needed, or a folder where a "
                "file is. Choose another folder."
            ) from error
        if error.errno in _REFUSED:
            raise AccessError(
                f"{path}: access refused ({reason}). Choose another folder, or grant this user "
                f"(uid {os.geteuid()}) access to it."
            ) from error
        raise StoreError(f"{path}: the file system failed ({reason}). Look at the system's log, then retry.") from error


@contextmanager
def new_file(final: Path) -> Iterator[BinaryIO]:
    """Give an open temporary file in the folder of `final`; its name begins with a dot.

    The body writes it and calls `replace` or `link_new`; whatever happens, no temporary file is left.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f".{secrets.token_hex(12)}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
    finally:
        temporary.unlink(missing_ok=True)


def replace(file: BinaryIO, final: Path) -> None:
    """Publish a file of `new_file` under its final name, replacing what is there."""
    _to_disk(file)
    Path(file.name).replace(final)
    _folder_to_disk(final.parent)


def link_new(file: BinaryIO, final: Path) -> bool:
    """Publish a file of `new_file` under its final name if nothing is there; say whether it was published.

    A hard link is the one portable way to give a name to a complete file without replacing another one.
    """
    _to_disk(file)
    try:
        os.link(file.name, final)
    except FileExistsError:
        return False
    _folder_to_disk(final.parent)
    return True


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
