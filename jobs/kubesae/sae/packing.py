"""Tensors as the bytes of a safetensors file, copied once, from any device straight to their places.

`safetensors.torch.save` copies twice, and of a checkpoint one copy is gigabytes. Here the bytes are the copy: the
tensors in them can be used while those that they came from change.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_LENGTH = 8  # bytes of the header's length, little-endian; the header is padded to a multiple of this


def packed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return about how many bytes `pack` takes: those of the tensors."""
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())


def pack(tensors: Mapping[str, Tensor]) -> tuple[bytearray, dict[str, Tensor]]:
    """Return the bytes of a safetensors file with these tensors, and the tensors that lie in it, on the CPU.

    The format: https://github.com/huggingface/safetensors#format. Wider types come first, so that all are aligned.

    Raises:
        KeyError: of a type that the format, or this, has no name for.
        MemoryError: the bytes do not fit.

    """
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    start = _LENGTH + len(text)
    data = bytearray(start + end)
    data[:start] = len(text).to_bytes(_LENGTH, "little") + text
    inside, at = {}, start
    for name, tensor in ordered:
        count = math.prod(tensor.shape)
        there = torch.frombuffer(data, dtype=tensor.dtype, count=count, offset=at) if count else tensor.new_empty(0)
        inside[name] = there.view(tensor.shape).copy_(tensor)
        at += count * tensor.itemsize
    return data, inside
