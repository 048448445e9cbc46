"""Records of TensorBoard's event files, written by hand: the format is small, and the package that writes it is not.

A file is a sequence of TFRecords: the length as uint64, its checksum, the data, its checksum; little-endian. Data are
protobuf messages of type `Event` (tensorflow/core/util/event.proto), of which four fields are needed:

    Event     1 wall_time: double    2 step: int64    3 file_version: string    5 summary: Summary
    Summary   1 value: repeated Value
    Value     1 tag: string    2 simple_value: float
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VERSION = b"brain.Event:2"
# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# CRC-32C (Castagnoli), bits reversed, and how TFRecord masks it: a checksum of data that hold checksums is weak.
_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8


def first_record(wall_time: float) -> bytes:
    """Return the record that a file begins with."""
    return _record(_time(wall_time) + _field(3, _BYTES, _VERSION))


def scalars_record(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return the record of numbers at a step (0 or more), by their tags.

    Args:
        wall_time: seconds since 1970.
        step: of training.
        values: numbers by tag; each is stored as float32.

    """
    summary = b"".join(
        _field(1, _BYTES, _field(1, _BYTES, tag.encode()) + _field(2, _FIXED32, struct.pack("<f", value)))
        for tag, value in values.items()
    )
    return _record(_time(wall_time) + _field(2, _VARINT, _varint(step)) + _field(5, _BYTES, summary))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def _time(wall_time: float) -> bytes:
    return _field(1, _FIXED64, struct.pack("<d", wall_time))


def _field(number: int, wire: int, data: bytes) -> bytes:
    length = _varint(len(data)) if wire == _BYTES else b""
    return _varint(number << 3 | wire) + length + data


def _varint(value: int) -> bytes:
    """Return seven bits a byte, the lowest first; the eighth bit says that more follow."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _table() -> Iterator[int]:
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ _POLYNOMIAL * (crc & 1)  # noqa: PLW2901 - the shift register itself
        yield crc


_TABLE = tuple(_table())
