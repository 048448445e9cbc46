"""How the page's data lie in files: each feature's JSON by itself, found by a range; the rest gzipped.

    features/index.json.gz     {"12": {"filename": "layer-012.<sha12>.bin", "offsets": [0, 5123, ...]}}
    features/<filename>        of each feature 4 bytes, how long it is, then that many bytes of zlib: its JSON

This is the layout that circuit-tracer's viewer reads. Bytes depend on nothing but the content (and zlib).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import IO, TYPE_CHECKING, Any

from kubesae.errors import DamagedError
from kubesae.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LEVEL = 5  # the next one makes 2% less of it, in a third more time
_LENGTH_BYTES = 4
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_GZIP = 31  # zlib's word for a gzip frame; it holds no time and no name
_LOT = 128
_THREADS = 2  # one writes JSON while another one's zlib runs


def pack(record: bytes) -> bytes:
    """Return one feature's JSON as it lies in the file."""
    data = zlib.compress(record, _LEVEL)
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def unpack(data: bytes, where: str) -> dict[str, Any]:
    """Return the feature whose bytes these are. Raises DamagedError, naming `where`, if they are none."""
    try:
        length = int.from_bytes(data[:_LENGTH_BYTES], "little")
        feature: dict[str, Any] = json.loads(zlib.decompress(data[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    except (zlib.error, ValueError) as error:
        raise DamagedError(f"{where} does not hold a feature: {error}. Run `kubesae interpret` again.") from error
    return feature


def write_records(records: Callable[[int, int], list[bytes]], features: int, file: IO[bytes]) -> tuple[list[int], str]:
    """Write all features to a file, and return where each begins (and the last one ends), and the file's SHA-256."""

    def lot(first: int) -> list[bytes]:
        return [pack(record) for record in records(first, min(first + _LOT, features))]

    offsets, digest = [0], hashlib.sha256()
    for packed in in_order(lot, range(0, features, _LOT), _THREADS):
        for data in packed:
            offsets.append(offsets[-1] + len(data))
            digest.update(data)
            file.write(data)
    return offsets, digest.hexdigest()


def index_of(layer: int, filename: str, offsets: Sequence[int]) -> dict[str, Any]:
    """Return what `index.json.gz` holds."""
    return {str(layer): {"filename": filename, "offsets": list(offsets)}}


def compact(value: object) -> str:
    """Return JSON without spaces; text as it is."""
    return _ENCODER.encode(value)


def gzip_json(value: object) -> bytes:
    """Return a value as gzipped JSON, always the same bytes."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return packer.compress(compact(value).encode()) + packer.flush()


def read_gzip_json(data: bytes, where: str) -> Any:
    """Return the value of gzipped JSON. Raises DamagedError, naming `where`, if it is none."""
    try:
        return json.loads(zlib.decompress(data, _GZIP))
    except (zlib.error, ValueError) as error:
        raise DamagedError(f"{where} is not gzipped JSON: {error}. Run `kubesae interpret` again.") from error
