"""Canonical JSON and SHA-256: what is hashed, stored and compared is always these bytes.

Canonical means UTF-8, keys sorted, no spaces, no NaN, and floats as Python's shortest round-trip form. Two programs
that agree on the values then agree on the bytes, and on the hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kubesae.errors import DamagedError


def canonical_json(value: Any) -> bytes:
    """Encode `value` as canonical JSON. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """Parse a stored JSON object; `where` (its key or URL) goes into the error.

    Raises:
        DamagedError: the bytes are not JSON, or not an object.

    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise DamagedError(
            f"{where} is not JSON ({error}; {len(data)} bytes). Restore it, or delete it so that it is made again."
        ) from error
    if not isinstance(value, dict):
        raise DamagedError(f"{where} holds a JSON {type(value).__name__}, not an object. Restore it, or delete it.")
    return value
