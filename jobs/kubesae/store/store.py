"""What a store is: the interface that every program is written against, and the rules for keys.

A store is a prefix with objects below it. Objects appear whole or not at all, `create` never replaces one, and a
listing is sorted by key and up to date: with these three the ledger needs no lock server and no database.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import AccessError, ConfigError, MissingError

if TYPE_CHECKING:
    import builtins  # Store.list hides the type
    from datetime import datetime
    from pathlib import Path

Buffer = bytes | bytearray | memoryview

# S3 allows 1024 bytes for prefix and key together; one folder or file name may have 255 on most file systems.
MAX_KEY_BYTES = 900
MAX_NAME_BYTES = 200

MAX_PAGE = 1000
"""objects that a server lists in one answer"""

PROBE_PREFIX = "kubesae-probe-"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says of an object."""

    size: int
    """bytes"""
    modified: datetime
    """when it was written, by the store's clock; aware, UTC"""


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload that was begun and neither completed nor given up: no listing shows it, and it takes space."""

    key: str
    """what it would become; of a store in a folder, its temporary file"""
    id: str
    """the store's own name of it"""
    size: int
    """bytes so far"""
    started: datetime
    """when it was begun or last written to, by the store's clock; aware, UTC"""


class Store(ABC):
    """Objects under one prefix. Thread-safe; a store opened before a fork may be used after it.

    Every method may raise `AccessError` (credentials or permissions refused, no such bucket, a folder that cannot be
    written) and `StoreError` (the store kept failing until the deadline, or the disk is full); a key that
    `is_key` refuses is a `ConfigError`.
    """

    url: str
    """where the store is: an absolute path or `s3://bucket/prefix`, without a slash at its end"""

    def __repr__(self) -> str:
        """Say where the store is."""
        return f"{type(self).__name__}({self.url!r})"

    def url_of(self, key: str) -> str:
        """Return the path or URL of an object, there or not."""
        return f"{self.url}/{check_key(key)}"

    @abstractmethod
    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return the object's bytes, or those in `[start, stop)`: as with slices, fewer where it is shorter.

        Raises:
            MissingError: there is no such object.

        """

    @abstractmethod
    def read_into(self, key: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` (bytes, writable) with the object's bytes from `start` on.

        Raises:
            MissingError: there is no such object.
            DamagedError: it ends before the buffer is full.

        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Return the object's size in bytes.

        Raises:
            MissingError: there is no such object.

        """

    def exists(self, key: str) -> bool:
        """Say whether there is such an object."""
        try:
            self.size(key)
        except MissingError:
            return False
        return True

    @abstractmethod
    def list(self, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> dict[str, ObjectInfo]:
        """Return all objects whose key begins with `prefix`, sorted by key; none is no error.

        Args:
            prefix: any beginning of a key; it need not end at a slash.
            after: only keys greater than this one.
            limit: only the first so many, at most `MAX_PAGE`: one request to a server, however many there are. Fewer
                come where there are no more, or where some are no keys.

        """

    @abstractmethod
    def put(self, key: str, data: Buffer, *, sha256: str | None = None) -> None:
        """Write an object, replacing one that is there: readers see the old bytes or the new ones, never a mix.

        `sha256` is the hex digest of `data`, where it is known: an S3 server then compares what it received with that,
        and takes all of it in one request, straight from `data`.
        """

    @abstractmethod
    def create(self, key: str, data: Buffer) -> bool:
        """Write an object if there is none under that key.

        Returns:
            True: it is ours. False: there is one, untouched; compare its bytes, because it may be ours after all
            (when the answer to a first attempt was lost on the way).

        """

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Write the file `path` as an object, replacing one that is there, without holding it in memory."""

    @abstractmethod
    def get_file(self, key: str, path: Path) -> None:
        """Write the object to the file `path`, which appears whole or not at all; missing folders are made.

        Raises:
            MissingError: there is no such object.

        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""

    @abstractmethod
    def open_uploads(self, prefix: str = "") -> builtins.list[OpenUpload]:
        """Return the uploads below `prefix` that are open, of running programs and of dead ones, sorted by key."""

    @abstractmethod
    def abort_upload(self, upload: OpenUpload) -> None:
        """End an open upload and free its space; one that is gone is no error."""

    def now(self) -> datetime:
        """Return the time by the store's clock, to compare with the times it gives; writes and deletes an object."""
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        self.put(key, b"")
        try:
            return self.list(key)[key].modified
        finally:
            self.delete(key)

    @abstractmethod
    def child(self, path: str) -> Store:
        """Return the store of the objects below `path`, over the same connection."""

    def probe(self, *, write: bool = True) -> None:
        """Try what a program will do here, so that it fails at its start and not after hours of work.

        Lists; with `write` also creates an object, reads it, sees that it cannot be created twice, and deletes it.

        Raises:
            AccessError: what is refused, or which promise the store does not keep.

        """
        self.list(PROBE_PREFIX)
        if not write:
            return
        key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
        data = secrets.token_bytes(16)
        created = self.create(key, data)
        try:
            if not created or self.read(key) != data:
                raise AccessError(f"{self.url}: what was written there could not be read back. Use another store.")
            if self.create(key, b"") or self.read(key) != data:
                raise AccessError(
                    f"{self.url}: the store replaces an object although told not to (it ignores If-None-Match), so "
                    "two workers could commit the same part. Use a store with conditional writes."
                )
        finally:
            self.delete(key)


def is_key(text: str) -> bool:
    """Say whether `text` can be a key: names joined by single slashes, none empty or beginning with a dot.

    The dot keeps `..` out, and the temporary files of local stores, which begin with one.
    """
    if not text.isprintable() or "\\" in text or len(text.encode()) > MAX_KEY_BYTES:
        return False
    return all(name and name[0] != "." and len(name.encode()) <= MAX_NAME_BYTES for name in text.split("/"))


def check_key(key: str) -> str:
    """Return `key`, or raise ConfigError if it is not one."""
    if not is_key(key):
        raise ConfigError(
            f"{key!r} is not a key of a store. Use printable names joined by single slashes, none of which is empty or "
            f"begins with a dot, of at most {MAX_NAME_BYTES} bytes each and {MAX_KEY_BYTES} together."
        )
    return key


def check_limit(limit: int | None) -> int | None:
    """Return `limit`; raises ValueError where it is more than a server lists at a time, or nothing."""
    if limit is not None and not 0 < limit <= MAX_PAGE:
        raise ValueError(f"not a number of objects from 1 to {MAX_PAGE}: {limit}")
    return limit


def check_range(start: int | None, stop: int | None) -> tuple[int, int | None]:
    """Return the byte range as `(start, stop or None for the end)`; raises ValueError for one that is none."""
    first = start or 0
    if first < 0 or (stop is not None and stop < first):
        raise ValueError(f"not a byte range: [{start}, {stop})")
    return first, stop
