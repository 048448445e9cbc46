"""Leave what a program leaves that is killed in the middle of an upload, on each backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from kubesae.store import Store


def begin_upload(request: pytest.FixtureRequest, store: Store, key: str, data: bytes) -> None:
    """Begin an upload of `key`, send `data`, and end it never."""
    if store.url.startswith("s3://"):
        client = request.getfixturevalue("s3_server").client
        bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
        where = {"Bucket": bucket, "Key": f"{prefix}/{key}"}
        upload = client.create_multipart_upload(**where)["UploadId"]
        client.upload_part(**where, UploadId=upload, PartNumber=1, Body=data)
    else:
        path = Path(store.url) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".{os.urandom(12).hex()}.tmp").write_bytes(data)
