"""Multi-part uploads that are open: begun by a program that died before it could complete or abort them.

They are billed, and no listing of objects shows them.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from kubesae.store.s3_failures import Kind, S3Failure
from kubesae.store.store import OpenUpload, is_key

if TYPE_CHECKING:
    from kubesae.store.s3_connection import S3Call


async def list_uploads(call: S3Call, bucket: str, above: str, prefix: str) -> list[OpenUpload]:
    """Return the open uploads of keys below `prefix`, which begins with `above`; keys are given without that."""
    request: dict[str, object] = {"Bucket": bucket, "Prefix": prefix}
    found = []
    while True:
        page = await call.send("list_multipart_uploads", **request)
        for entry in page.get("Uploads", []):
            key = entry["Key"].removeprefix(above)
            if entry["Key"].startswith(prefix) and is_key(key):
                size = await _size(call, {"Bucket": bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]})
                found.append(OpenUpload(key, entry["UploadId"], size, entry["Initiated"].astimezone(UTC)))
        if not page.get("IsTruncated"):
            return sorted(found, key=lambda upload: (upload.key, upload.id))
        request |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


async def _size(call: S3Call, where: dict[str, Any]) -> int:
    """Return the bytes of the parts that an upload has; 0 once it has ended."""
    request, size = dict(where), 0
    while True:
        try:
            page = await call.send("list_parts", **request)
        except S3Failure as failure:
            if failure.kind is Kind.UPLOAD_GONE:
                return 0
            raise
        size += sum(int(part["Size"]) for part in page.get("Parts", []))
        if not page.get("IsTruncated"):
            return size
        request["PartNumberMarker"] = page["NextPartNumberMarker"]
