"""A store in a folder: what the demo and a single machine use, with the promises of the S3 store.

A key is a path below the folder. Because of that no key can be the beginning of another up to a slash (`a` and `a/b`);
S3 itself would allow it, file-backed S3 servers do not, and kubesae's own keys never do it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import DamagedError, MissingError
from kubesae.store.disk import TEMPORARY, disk_errors, link_new, new_file, replace
from kubesae.store.store import Buffer, ObjectInfo, OpenUpload, Store, check_key, check_limit, check_range, is_key

if TYPE_CHECKING:
    import builtins  # LocalStore.list hides the type
    from collections.abc import Iterator
    from io import BufferedReader


class LocalStore(Store):
    """Objects as files below a folder, which is made by the first write."""

    def __init__(self, root: Path) -> None:
        """Take any path; a relative one is from the working directory now."""
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.resolve would follow links, absolute keeps `..`
        self.url = str(self._root)

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        first, last = check_range(start, stop)
        with self._open(key) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(first)
            return file.read(max(0, min(size, size if last is None else last) - first))

    def read_into(self, key: str, start: int, buffer: memoryview) -> None:
        """See `Store.read_into`."""
        view, filled = buffer.cast("B"), 0
        with self._open(key) as file:
            file.seek(check_range(start, None)[0])
            while filled < len(view) and (count := file.readinto(view[filled:])):
                filled += count
        if filled < len(view):
            raise DamagedError(
                f"{self.url_of(key)} ends {len(view) - filled} bytes too early: {len(view)} bytes were asked for from "
                f"{start} on. Restore it, or delete it so that it is made again."
            )

    def size(self, key: str) -> int:
        """See `Store.size`."""
        with self._open(key) as file:
            return os.fstat(file.fileno()).st_size

    def list(self, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> dict[str, ObjectInfo]:
        """See `Store.list`."""
        folder, slash, name = prefix.rpartition("/")
        if slash and not is_key(folder):
            return {}
        with disk_errors(self.url):
            found = dict(_files(self._root / folder, f"{folder}/" if folder else "", name))
        there = [key for key in sorted(found) if after is None or key > after]
        return {key: found[key] for key in there[: check_limit(limit)]}

    def put(self, key: str, data: Buffer, *, sha256: str | None = None) -> None:  # noqa: ARG002 - no server to check it
        """See `Store.put`."""
        path = self._path(key)
        with disk_errors(path), new_file(path) as file:
            file.write(data)
            replace(file, path)

    def create(self, key: str, data: Buffer) -> bool:
        """See `Store.create`."""
        path = self._path(key)
        if path.is_file():  # the common case of a rerun, without writing all the bytes first
            return False
        with disk_errors(path), new_file(path) as file:
            file.write(data)
            return link_new(file, path)

    def put_file(self, key: str, path: Path) -> None:
        """See `Store.put_file`."""
        final = self._path(key)
        with path.open("rb") as source, disk_errors(final), new_file(final) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            replace(file, final)

    def get_file(self, key: str, path: Path) -> None:
        """See `Store.get_file`."""
        with self._open(key) as source, disk_errors(path), new_file(path) as file:
            shutil.copyfileobj(source, file, 1 << 20)
            replace(file, path)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        path = self._path(key)
        with disk_errors(path):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return

    def open_uploads(self, prefix: str = "") -> builtins.list[OpenUpload]:
        """See `Store.open_uploads`: the temporary files of writes; those of killed programs stay."""
        found = []
        with disk_errors(self.url):
            for path in self._root.rglob(TEMPORARY):
                key = path.relative_to(self._root).as_posix()
                with contextlib.suppress(FileNotFoundError):  # published or given up since the folder was read
                    status = path.stat()
                    if key.startswith(prefix):
                        modified = datetime.fromtimestamp(status.st_mtime, UTC)
                        found.append(OpenUpload(key, key, status.st_size, modified))
        return sorted(found, key=lambda upload: upload.key)

    def abort_upload(self, upload: OpenUpload) -> None:
        """See `Store.abort_upload`."""
        path = self._root / upload.id
        with disk_errors(path):
            path.unlink(missing_ok=True)

    def child(self, path: str) -> LocalStore:
        """See `Store.child`."""
        return LocalStore(self._path(path))

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _open(self, key: str) -> Iterator[BufferedReader]:
        path = self._path(key)
        with disk_errors(path):
            try:
                file = path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise MissingError(
                    f"There is no object {path}. Check the prefix, or run the step that makes it."
                ) from error
            with file:
                yield file


def _files(folder: Path, above: str, beginning: str = "") -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the objects below `folder`, whose key is `above`, with names in it that begin with `beginning`."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        key = above + entry.name
        if not entry.name.startswith(beginning) or not is_key(key):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path), f"{key}/")
        elif entry.is_file():
            try:
                status = entry.stat()
            except FileNotFoundError:  # deleted since the folder was read
                continue
            yield key, ObjectInfo(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
