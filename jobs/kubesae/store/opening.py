"""From what a user wrote (`out`, `~/out`, `file:///data/out`, `s3://bucket/out`) to a store."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kubesae.errors import ConfigError
from kubesae.store.local import LocalStore
from kubesae.store.store import check_key

if TYPE_CHECKING:
    from kubesae.store.s3_connection import S3Connection
    from kubesae.store.s3_settings import S3Settings
    from kubesae.store.store import Store

DEADLINE = 600.0

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_SLASH_MISSING = re.compile(r"^(s3|gs|file|https?):")
_BUCKET = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")


def open_store(url: str, *, deadline: float = DEADLINE, settings: S3Settings | None = None) -> Store:
    """Open the store at `url`. Nothing is read or written yet: `Store.probe` tells whether it can be used.

    An S3 store takes endpoint, region, CA bundle and credentials from the environment and the AWS configuration files,
    as every AWS program does: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION, AWS_CA_BUNDLE, AWS_ACCESS_KEY_ID...
    With an endpoint of its own, buckets are addressed by path. They are read when the store is first used, so set them
    before and leave them: a store that was opened earlier does not notice a change.

    Args:
        url: a folder, `file:///folder`, or `s3://bucket/prefix`.
        deadline: seconds that one call on an S3 store may take in all, retries included. Local calls are not cut off:
            a system call that hangs on a network file system cannot be.
        settings: of an S3 store, in place of what the environment says.

    Raises:
        ConfigError: no store can be at that URL.

    """
    scheme = _SCHEME.match(url)
    if not url or url != url.strip():
        raise ConfigError(f"{url!r} is no place for a store. Give a folder or s3://bucket/prefix.")
    if scheme is None and _SLASH_MISSING.match(url):  # it would be a folder of that name
        raise ConfigError(f"{url!r} lacks a slash. Write s3://bucket/prefix with two, file:///folder with three.")
    if scheme is None:
        return LocalStore(Path(url).expanduser())
    if scheme[1] == "file":
        return LocalStore(_path_of(url))
    if scheme[1] == "s3":
        bucket, prefix = _bucket_and_prefix(url)
        # Here and not above: the S3 client takes 300 ms to import, and `kubesae --help` answers faster than that.
        from kubesae.store.s3 import S3Store  # noqa: PLC0415

        environment = frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))
        return S3Store(_connection(settings, environment), bucket, prefix, deadline)
    raise ConfigError(f"{url!r}: no store has the scheme {scheme[1]!r}. Give a folder or s3://bucket/prefix.")


@lru_cache(maxsize=8)
def _connection(
    settings: S3Settings | None,
    environment: frozenset[tuple[str, str]],  # noqa: ARG001 - a part of the key; the client reads it
) -> S3Connection:
    """Return the connection that all stores of this process share as long as the settings are the same."""
    from kubesae.store.s3_connection import S3Connection  # noqa: PLC0415

    return S3Connection(settings)


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise ConfigError(f"{url!r} names no local folder. Write file:///folder, with three slashes.")
    return Path(unquote(parts.path))


def _bucket_and_prefix(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.match(bucket):
        raise ConfigError(
            f"{url!r}: {bucket!r} is no bucket name (3 to 63 lower-case letters, digits, dots and dashes). "
            "Write s3://bucket/prefix."
        )
    return bucket, check_key(prefix) if prefix else ""
