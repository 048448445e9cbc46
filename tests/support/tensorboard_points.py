"""Reads event files of TensorBoard that hold nothing but scalars, with both checksums of every record."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kubesae.train.tensorboard_events import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator


def records(data: bytes) -> Iterator[bytes]:
    """Yield the data of every TFRecord."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        body = data[at + 12 : at + 12 + length]
        for piece, place in ((data[at : at + 8], at + 8), (body, at + 12 + length)):
            crc = crc32c(piece)
            assert struct.unpack_from("<I", data, place)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        yield body
        at += 16 + length


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and content of every field of a protobuf message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = varint()
        wire = tag & 7
        if wire == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(wire) or varint()
        yield tag >> 3, message[at : at + size]
        at += size


def points(data: bytes) -> Iterator[tuple[str, int, float]]:
    """Yield tag, step and value of every scalar."""
    for number, record in enumerate(records(data)):
        event = dict(fields(record))
        if number == 0:
            assert event[3] == b"brain.Event:2"
            continue
        for _, value in fields(event[5]):
            scalar = dict(fields(value))
            yield scalar[1].decode(), event.get(2, 0), struct.unpack("<f", scalar[2])[0]
