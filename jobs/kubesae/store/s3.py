"""A store in an S3 bucket, of AWS or of any server with conditional writes.

`create` is one conditional write (If-None-Match: *), the only coordination kubesae needs. An object goes up in one
request, straight from the caller's memory, if it is small or its digest is known; others in parts, of which four at a
time are copied, and an upload that fails is aborted. Sizes come from listings and not from HEAD requests, whose
bodiless answers cannot tell a missing bucket from a missing object, nor wrong credentials from missing rights.
"""

from __future__ import annotations

import mimetypes
import os
from typing import TYPE_CHECKING, TypeVar

from kubesae.errors import DamagedError, MissingError
from kubesae.store.disk import disk_errors, new_file, replace
from kubesae.store.s3_failures import Kind, S3Failure
from kubesae.store.s3_listing import Listing
from kubesae.store.s3_transfer import ONE_REQUEST_BYTES, byte_range, download, fetch, fetch_into, upload
from kubesae.store.s3_uploads import list_uploads
from kubesae.store.store import Buffer, ObjectInfo, OpenUpload, Store, check_key, check_limit, check_range, is_key

if TYPE_CHECKING:
    import builtins  # S3Store.list hides the type
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kubesae.store.s3_connection import S3Call, S3Connection
    from kubesae.store.s3_listing import Entry
    from kubesae.store.s3_wire import Wire

T = TypeVar("T")

PROBE_DEADLINE = 30.0
MAX_REQUEST_BYTES = 5 << 30  # what S3 takes in one request


class S3Store(Store):
    """Objects below one prefix of a bucket."""

    def __init__(self, connection: S3Connection, bucket: str, prefix: str, deadline: float) -> None:
        """Send nothing yet. `deadline`: seconds for one call in all."""
        self._connection = connection
        self._bucket = bucket
        self._prefix = prefix
        self._deadline = deadline
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        first, last = check_range(start, stop)
        where = self._where(key)
        if first == last:
            self.size(key)  # a missing object is an error all the same
            return b""
        ranges = {"Range": byte_range(first, last)} if first or last is not None else {}
        return self._run(
            key,
            lambda call: fetch(call, **where, **ranges),
            short=lambda wire, end: wire.get(where["Key"], ranges, end),
            otherwise={Kind.BEYOND: b""},
        )

    def read_into(self, key: str, start: int, buffer: memoryview) -> None:
        """See `Store.read_into`."""
        view = buffer.cast("B")
        first, last = check_range(start, start + len(view))
        where, ranges = self._where(key), {"Range": byte_range(first, last)}
        if first == last:
            self.size(key)
            return
        filled = self._run(
            key,
            lambda call: fetch_into(call, view, **where, **ranges),
            short=lambda wire, end: wire.get_into(where["Key"], ranges, view, end),
            otherwise={Kind.BEYOND: 0},
        )
        if filled < len(view):
            raise DamagedError(
                f"{self.url_of(key)} ends {len(view) - filled} bytes too early: {len(view)} bytes were asked for from "
                f"{start} on. Restore it, or delete it so that it is made again."
            )

    def size(self, key: str) -> int:
        """See `Store.size`."""
        return self._entry(key).size

    def list(self, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> dict[str, ObjectInfo]:
        """See `Store.list`."""
        above = f"{self._prefix}/" if self._prefix else ""
        start, most = None if after is None else above + after, check_limit(limit)
        entries = self._list(None, Listing(self._bucket, above + prefix, after=start, limit=most))
        found = {entry.key.removeprefix(above): entry for entry in entries}
        return {
            key: ObjectInfo(found[key].size, found[key].modified)
            for key in sorted(found)
            if is_key(key)  # consoles make "folder/" markers, and others may keep hidden files there
        }

    def put(self, key: str, data: Buffer, *, sha256: str | None = None) -> None:
        """See `Store.put`."""
        self._upload(key, data, sha256)

    def create(self, key: str, data: Buffer) -> bool:
        """See `Store.create`."""
        return self._upload(key, data, IfNoneMatch="*")

    def put_file(self, key: str, path: Path) -> None:
        """See `Store.put_file`."""
        with path.open("rb") as file:
            descriptor = file.fileno()

            def part(start: int, stop: int) -> bytes:
                return os.pread(descriptor, stop - start, start)

            self._send(key, os.fstat(descriptor).st_size, part)

    def get_file(self, key: str, path: Path) -> None:
        """See `Store.get_file`."""
        entry = self._entry(key)
        with disk_errors(path), new_file(path) as file:
            descriptor = file.fileno()

            def write(data: bytes, offset: int) -> None:
                os.pwrite(descriptor, data, offset)

            self._run(key, lambda call: download(call, self._where(key), entry.size, entry.etag, write))
            replace(file, path)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""

        async def delete(call: S3Call) -> None:
            await call.send("delete_object", **self._where(key))

        self._run(key, delete, otherwise={Kind.MISSING: None})

    def open_uploads(self, prefix: str = "") -> builtins.list[OpenUpload]:
        """See `Store.open_uploads`."""
        above = f"{self._prefix}/" if self._prefix else ""
        return self._run(None, lambda call: list_uploads(call, self._bucket, above, above + prefix))

    def abort_upload(self, upload: OpenUpload) -> None:
        """See `Store.abort_upload`."""

        async def abort(call: S3Call) -> None:
            await call.send("abort_multipart_upload", **self._where(upload.key), UploadId=upload.id)

        self._run(upload.key, abort, otherwise={Kind.UPLOAD_GONE: None})

    def child(self, path: str) -> S3Store:
        """See `Store.child`."""
        prefix = f"{self._prefix}/{check_key(path)}" if self._prefix else check_key(path)
        return S3Store(self._connection, self._bucket, prefix, self._deadline)

    def probe(self, *, write: bool = True) -> None:
        """See `Store.probe`. Waits at most 30 s for each answer, so that a wrong endpoint is soon told."""
        deadline = min(self._deadline, PROBE_DEADLINE)
        if deadline < self._deadline:
            S3Store(self._connection, self._bucket, self._prefix, deadline).probe(write=write)
        else:
            super().probe(write=write)

    def _where(self, key: str) -> dict[str, str]:
        full = f"{self._prefix}/{check_key(key)}" if self._prefix else check_key(key)
        return {"Bucket": self._bucket, "Key": full}

    def _entry(self, key: str) -> Entry:
        """Return the object's entry in the listing: its key is the first one that begins with itself."""
        full = self._where(key)["Key"]
        entries = self._list(key, Listing(self._bucket, full, limit=1))
        if not entries or entries[0].key != full:
            raise self._missing(key)
        return entries[0]

    def _list(self, key: str | None, listing: Listing) -> builtins.list[Entry]:
        return self._run(key, listing.in_general, short=listing.over_wire)

    def _upload(self, key: str, data: Buffer, sha256: str | None = None, **condition: str) -> bool:
        """Write the object, in one request from `data` where that can be; False: the condition does not hold."""
        view = memoryview(data).cast("B")
        name, kind = self._where(key)["Key"], _content_type(key)
        headers = {"Content-Type": kind, **({"If-None-Match": "*"} if condition else {})}

        def short(wire: Wire, end: float) -> bool:
            wire.put(name, headers, view, sha256, end)
            return True

        def part(start: int, stop: int) -> bytes:
            return bytes(view[start:stop])

        whole = len(view) <= (ONE_REQUEST_BYTES if sha256 is None else MAX_REQUEST_BYTES)
        return self._send(key, len(view), part, short if whole else None, **condition)

    def _send(
        self,
        key: str,
        size: int,
        part: Callable[[int, int], bytes],
        short: Callable[[Wire, float], bool] | None = None,
        **condition: str,
    ) -> bool:
        """Write the object; False: the condition does not hold."""
        where = self._where(key)

        async def send(call: S3Call) -> bool:
            await upload(call, where, size, part, ContentType=_content_type(key), **condition)
            return True

        return self._run(key, send, short=short, otherwise={Kind.EXISTS: False} if condition else {})

    def _run(
        self,
        key: str | None,
        operation: Callable[[S3Call], Awaitable[T]],
        *,
        short: Callable[[Wire, float], T] | None = None,
        otherwise: dict[Kind, T] | None = None,
    ) -> T:
        """Run one call on the store.

        Args:
            key: the object that it is about.
            operation: does it with the general client.
            short: does the same over a wire, which is tried first.
            otherwise: what to return for failures that are an answer.

        """
        url = self.url if key is None else self.url_of(key)
        try:
            if short is not None:
                return self._connection.transfer(url, self._deadline, self._bucket, short, operation)
            return self._connection.run(url, self._deadline, operation)
        except S3Failure as failure:
            if otherwise and failure.kind in otherwise:
                return otherwise[failure.kind]
            if failure.kind is Kind.MISSING and key is not None:
                raise self._missing(key) from failure
            raise failure.for_user(url) from failure

    def _missing(self, key: str) -> MissingError:
        return MissingError(f"There is no object {self.url_of(key)}. Check the prefix, or run the step that makes it.")


def _content_type(key: str) -> str:
    """Return what browsers should take the object for: reports and pages are looked at in the bucket."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"
