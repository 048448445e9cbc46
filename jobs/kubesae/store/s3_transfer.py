"""Moving bytes to and from S3 inside one call: whole objects, ranges, parts.

`where` is always the pair of arguments that every S3 request takes: {"Bucket": ..., "Key": ...}.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from kubesae.store.s3_connection import in_parallel
from kubesae.store.s3_failures import Kind, S3Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.store.s3_connection import S3Call

log = logging.getLogger(__name__)

PART_BYTES = 32 << 20
ONE_REQUEST_BYTES = 2 * PART_BYTES
MAX_PARTS = 10_000
PARALLEL_PARTS = 4
ABORT_SECONDS = 5.0
PARTIAL_CONTENT = 206


def byte_range(start: int, stop: int | None) -> str:
    """Return the HTTP header for `[start, stop)`."""
    return f"bytes={start}-{'' if stop is None else stop - 1}"


async def fetch(call: S3Call, **request: str) -> bytes:
    """Return what one GetObject request gives."""

    async def attempt() -> bytes:
        body = await _open_body(call, request)
        with contextlib.closing(body):
            data: bytes = await body.read()
            return data

    return await call.retry(attempt)


async def fetch_into(call: S3Call, view: memoryview, **request: str) -> int:
    """Write what one GetObject request gives to `view`, without another copy; return the number of bytes."""

    async def attempt() -> int:
        filled = 0
        body = await _open_body(call, request)
        with contextlib.closing(body):
            while filled < len(view) and (count := await body.readinto(view[filled:])):
                filled += count
        return filled

    return await call.retry(attempt)


async def _open_body(call: S3Call, request: dict[str, str]) -> Any:
    answer = await call.request("get_object", **request)
    if "Range" in request and answer["ResponseMetadata"]["HTTPStatusCode"] != PARTIAL_CONTENT:
        answer["Body"].close()
        raise S3Failure(Kind.OTHER, "the server ignored the byte range of a request")
    return answer["Body"]


async def download(
    call: S3Call, where: dict[str, str], size: int, etag: str, write: Callable[[bytes, int], object]
) -> None:
    """Fetch `size` bytes in ranges, several at a time, and give each to `write(data, offset)`."""

    async def fetch_range(number: int) -> None:
        start = number * PART_BYTES
        ranges = byte_range(start, min(start + PART_BYTES, size))
        # IfMatch: all ranges come from one version of an object that is replaced meanwhile.
        write(await fetch(call, **where, Range=ranges, IfMatch=etag), start)

    await in_parallel(-(-size // PART_BYTES), PARALLEL_PARTS, fetch_range)


async def upload(
    call: S3Call, where: dict[str, str], size: int, part: Callable[[int, int], bytes], **options: str
) -> None:
    """Write an object of `size` bytes; `part(start, stop)` gives those in a range.

    Raises:
        S3Failure: EXISTS, if the options say IfNoneMatch and there is an object.

    """
    if size <= ONE_REQUEST_BYTES:
        await call.send("put_object", **where, Body=part(0, size), **options)
        return
    while True:
        try:
            await _upload_parts(call, where, size, part, options)
        except S3Failure as failure:
            # Ended by somebody's clean-up, or completed by a request whose answer got lost: once more tells which.
            if failure.kind is not Kind.UPLOAD_GONE:
                raise
            log.warning("s3://%s/%s: the upload is gone; starting it again", where["Bucket"], where["Key"])
        else:
            return


async def _upload_parts(
    call: S3Call, where: dict[str, str], size: int, part: Callable[[int, int], bytes], options: dict[str, str]
) -> None:
    step = max(PART_BYTES, -(-size // MAX_PARTS))
    condition = {name: options[name] for name in ("IfNoneMatch",) if name in options}
    others = {name: value for name, value in options.items() if name not in condition}
    upload_id = (await call.send("create_multipart_upload", **where, **others))["UploadId"]

    async def send_part(number: int) -> dict[str, object]:
        body = part(number * step, min((number + 1) * step, size))
        answer = await call.send("upload_part", **where, UploadId=upload_id, PartNumber=number + 1, Body=body)
        return {"PartNumber": number + 1, "ETag": answer["ETag"]}

    try:
        parts = await in_parallel(-(-size // step), PARALLEL_PARTS, send_part)
        await call.send(
            "complete_multipart_upload", **where, UploadId=upload_id, MultipartUpload={"Parts": parts}, **condition
        )
    except BaseException:  # the deadline's cancellation too: an open upload is billed and shown by no listing
        with contextlib.suppress(Exception):
            async with asyncio.timeout(ABORT_SECONDS):
                await call.request("abort_multipart_upload", **where, UploadId=upload_id)
        raise
