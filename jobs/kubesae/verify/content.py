"""Every byte of a tar, read once and hashed once: its digest, its members, and what activations and moments say.

The bytes come in pieces of whole blocks, so memory is bounded by the piece and not by the tar. Sums are taken over
small tiles in float32 and added up in float64: twice as fast as float64 throughout, and exact to about a millionth,
which is why sums, norms at a bin's edge and norms at the outlier threshold are compared within 1e-5 of each other.
Another processor's rounding is then no damage.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError, MissingError
from kubesae.ledger import Damage
from kubesae.shards import FLAGS, NORM_OUTLIER, OUTLIER_RATIO, Moments, parse_block, position_flags
from kubesae.shards.moments import BINS, norm_bins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.ledger import LayerRecord, Part
    from kubesae.shards import BlockData, BlockRef
    from kubesae.verify.context import Context

    Wrong = tuple[Damage, str, str | None]  # kind, detail, key of the object (None: the record)

TAR_END = bytes(1024)
PIECE = 16 << 20
TILE = 1 << 17  # floats of a tile: half a megabyte stays in the processor's cache
TOLERANCE = 1e-5


def check_tar(
    context: Context, part: Part, layer: LayerRecord, size: int, refs: list[BlockRef], moments: Moments | None
) -> Iterator[Wrong]:
    """Check one tar.

    Args:
        context: what it is checked against.
        part: the part.
        layer: what the record says of the tar.
        size: bytes of the tar in the store.
        refs: its blocks, in order; none where the record gives no sound offsets.
        moments: its stored moments; None where they are damaged.

    """
    content = _Content(context, part, layer, moments)
    digest, end = hashlib.sha256(), b""
    try:
        for start, data, blocks in _pieces(context, layer, refs, size):
            digest.update(data)
            for ref in blocks:
                content.add(ref, data[ref.offset - start : ref.offset - start + ref.bytes])
            end = bytes(data[-len(TAR_END) :])
    except (MissingError, DamagedError):  # gone or cut since the listing
        yield Damage.CHANGED_TAR, "it changed while it was read", layer.key
        return
    found = digest.hexdigest()
    if found != layer.sha256:
        yield _other_bytes(context, layer, found, size)
    elif size != layer.bytes:
        yield Damage.WRONG_BLOCKS, f"says that {layer.key} has {layer.bytes} bytes; with its digest it has {size}", None
    elif refs:
        if end != TAR_END:
            yield Damage.MALFORMED_TAR, "it does not end as a tar does", layer.key
        yield from content.finish()


def _pieces(
    context: Context, layer: LayerRecord, refs: list[BlockRef], size: int
) -> Iterator[tuple[int, memoryview, list[BlockRef]]]:
    """Read the tar in order: first byte, bytes (valid until the next piece) and blocks of each piece."""
    cuts: list[tuple[int, list[BlockRef]]] = [(0, [])]
    if refs and size == layer.bytes:
        for ref in refs:
            if ref.offset - cuts[-1][0] >= PIECE:
                cuts.append((ref.offset, []))
            cuts[-1][1].append(ref)
    else:
        cuts = [(start, []) for start in range(0, size, PIECE)]
    ends = [*(start for start, _ in cuts[1:]), size]
    buffer = memoryview(bytearray(max((end - start for (start, _), end in zip(cuts, ends, strict=False)), default=0)))
    for (start, blocks), end in zip(cuts, ends, strict=False):
        context.store.read_into(layer.key, start, buffer[: end - start])
        yield start, buffer[: end - start], blocks


def _other_bytes(context: Context, layer: LayerRecord, found: str, size: int) -> Wrong:
    other = context.tars.get(found[:12])
    if other is not None and other != layer.key:
        return Damage.SWAPPED_TAR, f"its bytes are those of {other}", layer.key
    if size < layer.bytes:
        return Damage.TRUNCATED_TAR, f"{size} bytes, the record says {layer.bytes}", layer.key
    return Damage.CHANGED_TAR, f"its SHA-256 is {found[:12]}, the record says {layer.sha256[:12]}", layer.key


class _Content:
    """What the blocks of one tar hold, added one after the other."""

    def __init__(self, context: Context, part: Part, layer: LayerRecord, moments: Moments | None) -> None:
        self._context = context
        self._part = part
        self._layer = layer
        self._moments = moments
        self._at = 0
        self._found: list[Wrong] = []
        self._stopped = False
        self._norms: list[npt.NDArray[np.float32]] = []
        self._flags: list[npt.NDArray[np.uint8]] = []
        self._total = np.zeros(context.identity.d_model)
        self._squares = np.zeros(context.identity.d_model)
        self._count = 0

    def add(self, ref: BlockRef, data: memoryview) -> None:
        """Check one block; after one that cannot be read nothing more is said."""
        if self._stopped:
            return
        try:
            block = parse_block(data, self._context.url(self._layer.key))
        except DamagedError as error:
            self._stop(Damage.MALFORMED_TAR, str(error))
            return
        if (block.key, block.row, block.meta["layer"]) != (ref.key, ref.row, ref.layer):
            self._say(Damage.WRONG_BLOCK, f"{block.key} stands where {ref.key} should")
        shape = (ref.rows, self._context.identity.d_model)
        if block.acts.shape != shape or block.dtype != self._context.identity.storage:
            has, wanted = (*block.acts.shape, block.dtype), (*shape, self._context.identity.storage)
            self._stop(Damage.WRONG_SHAPE, f"{ref.key} has {has}, not {wanted}")
            return
        self._check_origin(ref, block)
        self._add_rows(block)
        self._at += ref.rows

    def _check_origin(self, ref: BlockRef, block: BlockData) -> None:
        """Token ids and documents against the plan's."""
        manifest, start = self._context.manifest, self._part.start + self._at
        tokens = self._context.tokens(self._part.shard)
        if manifest is not None and int(block.tokens.max(initial=0)) >= manifest.tokenizer.size:
            largest, size = int(block.tokens.max()), manifest.tokenizer.size
            self._say(Damage.UNKNOWN_TOKEN, f"{ref.key} has token id {largest}, the vocabulary {size} ids")
        elif tokens.ids is not None and not np.array_equal(block.tokens, tokens.ids[start : start + ref.rows]):
            self._say(Damage.WRONG_TOKENS, f"{ref.key} has other token ids than the plan")
        if tokens.documents is not None and block.documents() != tokens.documents.documents(start, ref.rows):
            self._say(Damage.WRONG_DOCUMENTS, f"{ref.key} names other documents than the tokens' own")

    def _add_rows(self, block: BlockData) -> None:
        stored, d_model = block.stored, block.acts.shape[1]
        norms = np.empty(len(block.acts), np.float32)
        step = max(1, TILE // d_model)
        tile_TD = np.empty((step, d_model), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for first in range(0, len(norms), step):
                rows = slice(first, first + step)
                x_TD = stored.float32(rows, tile_TD[: len(norms[rows])])
                np.sqrt(np.einsum("rd,rd->r", x_TD, x_TD), out=norms[rows])
                flagged = block.flags[rows] != 0
                x_TD[flagged] = 0  # moments are of the other rows
                self._total += np.add.reduce(x_TD, axis=0)
                self._squares += np.einsum("rd,rd->d", x_TD, x_TD)
                self._count += int((~flagged).sum())
        self._norms.append(norms)
        self._flags.append(block.flags.copy())

    def finish(self) -> Iterator[Wrong]:
        """What is wrong."""
        if not self._stopped:
            self._check_rows(np.concatenate(self._norms), np.concatenate(self._flags))
        yield from self._found

    def _check_rows(self, norms: npt.NDArray[np.float32], flags: npt.NDArray[np.uint8]) -> None:
        if not np.isfinite(norms).all():
            self._say(Damage.NOT_FINITE, f"{int((~np.isfinite(norms)).sum())} rows")
            return
        part, layer = self._part, self._layer
        ids = self._context.tokens(part.shard).ids
        if self._context.manifest is not None and ids is not None:
            special = np.array(self._context.manifest.tokenizer.special, np.uint32)
            positions = np.arange(part.rows) % self._context.identity.context
            expected = position_flags(ids[part.start : part.start + part.rows], positions, special)
            wrong = _wrong_flags(norms, flags, expected)
            if wrong:
                self._say(Damage.WRONG_FLAGS, f"{wrong} rows")
                return
        counts = tuple(int((flags & bit != 0).sum()) for bit in FLAGS)
        if counts != layer.flags:
            detail = f"says {list(layer.flags)} of layer {layer.layer}, the tar has {list(counts)}"
            self._found.append((Damage.WRONG_FLAG_COUNTS, detail, None))
        if self._moments is not None and not self._agree(self._moments, norms):
            self._found.append((Damage.WRONG_MOMENTS, "they are not those of the tar", layer.moments))

    def _agree(self, stored: Moments, norms: npt.NDArray[np.float32]) -> bool:
        """Whether the stored moments are those of the rows."""
        if (stored.rows, stored.count) != (len(norms), self._count) or stored.total.shape != self._total.shape:
            return False
        sums = (
            (stored.squares, self._squares, self._squares),
            (
                stored.total,
                self._total,
                np.sqrt(self._squares * self._count),  # at least the sum of the absolute values
            ),
        )
        with np.errstate(invalid="ignore"):  # a stored NaN agrees with nothing
            if not all(bool((np.abs(a - b) <= TOLERANCE * scale).all()) for a, b, scale in sums):
                return False
        low, high = (
            np.cumsum(np.bincount(norm_bins(norms * np.float32(factor)), minlength=BINS))
            for factor in (1 + TOLERANCE, 1 - TOLERANCE)
        )
        have = np.cumsum(stored.histogram)
        return bool(((low <= have) & (have <= high)).all())

    def _say(self, kind: Damage, detail: str) -> None:
        self._found.append((kind, detail, self._layer.key))

    def _stop(self, kind: Damage, detail: str) -> None:
        self._say(kind, detail)
        self._stopped = True


def _wrong_flags(norms: npt.NDArray[np.float32], flags: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> int:
    """How many rows have other flags than bits 0 and 1 of `expected` and bit 2 of their norms."""
    plain = norms[expected == 0].astype(np.float64)
    if plain.size:
        threshold = OUTLIER_RATIO * float(np.median(plain))
        expected = expected | np.where(norms > threshold, NORM_OUTLIER, 0).astype(np.uint8)
        near = np.abs(norms - threshold) <= TOLERANCE * threshold
    else:
        near = np.zeros(len(norms), bool)
    different = flags ^ expected
    return int((different & np.where(near, 255 - NORM_OUTLIER, 255).astype(np.uint8) != 0).sum())
