"""Where every byte of a part's tar lies, computed before any activation exists.

A part is a USTAR archive, byte-reproducible (mtime 0, fixed owner, fixed order). One sample is one block:

    s0003-p000007-b0012.acts.npy     [tokens, d_model]  bfloat16 as int16, float32, or int8
    s0003-p000007-b0012.exponents.npy [tokens, blocks]  int8; only of int8-block32
    s0003-p000007-b0012.tokens.npy   [tokens]           uint32
    s0003-p000007-b0012.flags.npy    [tokens]           uint8: bit 0 first position, 1 special token, 2 norm outlier
    s0003-p000007-b0012.json         layer, dtype, first global row, documents

Every size follows from the plan, so a tar is one preallocated buffer: activations are copied from the device straight
to where they lie in the tar, and the digest is one pass over it.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubesae.experiment import canonical_json
from kubesae.shards.codecs import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.ledger import Block
    from kubesae.shards.codecs import Codec

FIRST_POSITION = 1
SPECIAL_TOKEN = 2
NORM_OUTLIER = 4
FLAGS = (FIRST_POSITION, SPECIAL_TOKEN, NORM_OUTLIER)

TAR_BLOCK = 512
END_OF_ARCHIVE = 2 * TAR_BLOCK


@dataclass(frozen=True, slots=True)
class Document:
    """A run of rows of a block that comes from one document. `start` counts rows from the block's first."""

    start: int
    tokens: int
    corpus: str
    document: str
    offset: int


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


def padded(size: int) -> int:
    """Return `size` rounded up to whole tar blocks."""
    return -(-size // TAR_BLOCK) * TAR_BLOCK


def array_start(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Where the values of an npy member begin, from the beginning of its tar header."""
    return TAR_BLOCK + len(_npy_header(dtype, shape))


def array_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of an npy member with its tar header and padding: where the next member begins."""
    return TAR_BLOCK + padded(_size(_npy_header(dtype, shape), (dtype, shape)))


class PartTar:
    """The tar of one part and layer as one preallocated buffer, its headers written, its arrays views to be filled.

    Attributes:
        buffer: uint8 [bytes], the archive.
        stored: for each block the views of its activations inside `buffer`.
        tokens, flags: for each block the view of its array inside `buffer`.
        errors: for each block the squared errors of its rows, float64 [rows]; empty where the codec has none.
        offsets: byte offset of each block's first member.

    """

    def __init__(
        self,
        blocks: Sequence[Block],
        documents: Sequence[Sequence[Document]],
        first_rows: Sequence[int],
        *,
        layer: int,
        d_model: int,
        codec: Codec,
    ) -> None:
        """Lay the archive out: `documents` and `first_rows` (global row of the first token) are by block."""
        pieces: list[list[tuple[str, bytes, npt.NDArray[Any] | None]]] = []
        for block, docs, row in zip(blocks, documents, first_rows, strict=True):
            meta = canonical_json(
                {
                    "documents": [[d.start, d.tokens, d.corpus, d.document, d.offset] for d in docs],
                    "dtype": codec.name,
                    "layer": layer,
                    "row": row,
                }
            )
            arrays = codec.arrays(block.rows, d_model) | {
                "tokens.npy": (np.dtype("<u4"), (block.rows,)),
                "flags.npy": (np.dtype("u1"), (block.rows,)),
            }
            members: list[tuple[str, bytes, Any]] = [
                (f"{block.key}.{suffix}", _npy_header(dtype, shape), (dtype, shape))
                for suffix, (dtype, shape) in arrays.items()
            ]
            members.append((f"{block.key}.json", meta, None))
            pieces.append(members)
        self.stored: list[Stored] = []
        self.errors = [np.zeros(block.rows) for block in blocks] if codec.scaled else []
        self.tokens: list[npt.NDArray[np.uint32]] = []
        self.flags: list[npt.NDArray[np.uint8]] = []
        self.offsets: list[int] = []
        self.buffer = self._fill(pieces, codec)

    def put(self, block: int, row: int, x_ND: Tensor) -> None:
        """Store activations [rows, d_model] in a block, from its row `row` on."""
        rows = slice(row, row + len(x_ND))
        errors = self.stored[block].write(rows, x_ND)
        if errors is not None:
            self.errors[block][rows] = errors

    def _fill(self, pieces: list[list[tuple[str, bytes, Any]]], codec: Codec) -> npt.NDArray[np.uint8]:
        total = sum(TAR_BLOCK + padded(_size(head, array)) for members in pieces for _, head, array in members)
        buffer = np.zeros(total + END_OF_ARCHIVE, np.uint8)
        at = 0
        for members in pieces:
            self.offsets.append(at)
            views = []
            for name, head, array in members:
                size = _size(head, array)
                _put(buffer, at, _tar_header(name, size))
                _put(buffer, at + TAR_BLOCK, head)
                if array is not None:
                    dtype, shape = array
                    data = buffer[at + TAR_BLOCK + len(head) : at + TAR_BLOCK + size]
                    views.append(data.view(dtype).reshape(shape))
                at += TAR_BLOCK + padded(size)
            *activations, tokens, flags = views
            self.stored.append(Stored(codec, *activations))
            self.tokens.append(tokens)
            self.flags.append(flags)
        return buffer


def _size(head: bytes, array: tuple[np.dtype[Any], tuple[int, ...]] | None) -> int:
    if array is None:
        return len(head)
    dtype, shape = array
    return len(head) + dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def _put(buffer: npt.NDArray[np.uint8], at: int, data: bytes) -> None:
    buffer[at : at + len(data)] = np.frombuffer(data, np.uint8)
