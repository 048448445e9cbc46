"""First step of prepare: one unit of a corpus -> one segment of packed contexts.

Each segment is a pure function of its unit, the settings and, where documents are deduplicated, the units before it. It
is stored before the next is counted, so a killed `prepare` goes on where it was. The `.json` of a segment is written
last: a segment exists when it does. Contexts and pieces go to the store by way of files: memory holds a batch of
documents, however large the unit.
"""

from __future__ import annotations

import io
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from kubesae.corpus import Packer, Renderer
from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import canonical_json, parse_json_object
from kubesae.ledger import keys
from kubesae.parallel import READERS, in_order
from kubesae.store.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubesae.corpus import Encoded, HubDataset, LocalFiles, Piece, TextDocument, Tokenizer
    from kubesae.prepare.digests import Digests
    from kubesae.store import Store

# A batch is spread over all cores: documents enough for each to have some, and characters few enough for memory.
BATCH_DOCUMENTS = 1024
BATCH_CHARACTERS = 1_000_000
_PIECES_AT_ONCE = 65_536

PIECE_SCHEMA = pa.schema(
    [
        ("context", pa.int64()),
        ("start", pa.int64()),
        ("tokens", pa.int64()),
        ("document", pa.string()),
        ("offset", pa.int64()),
        ("char", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a segment depends on besides its unit; `documents` is a hash of what decides the unit's documents."""

    tokenizer: str
    revision: str
    documents: str
    context: int
    bos: int | None
    separator: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class Segment:
    """What a stored segment holds, and what was dropped of its unit because it came before."""

    contexts: int
    duplicates: int = 0
    duplicate_tokens: int = 0


@dataclass
class SegmentMaker:
    """Makes the segments of one corpus, in the order of its units or some of them."""

    store: Store
    tokenizer: Tokenizer
    source: LocalFiles | HubDataset
    corpus: str
    settings: Settings
    renderer: Renderer | None = None
    digests: Digests | None = None
    known: dict[int, Segment] = field(default_factory=dict)
    """segments that were made here or seen in the store, by unit"""
    _stale: set[int] = field(default_factory=set)

    def stored(self) -> dict[int, Segment]:
        """Return the segments that are there now, by unit, those of other settings left out: `known`, by a listing."""
        there = map(keys.parse_segment, self.store.list(keys.segments(self.corpus)))
        new = [unit for unit in there if unit is not None and unit not in self.known]
        for unit, segment in zip(new, in_order(self._stored, new, READERS), strict=True):
            if segment is not None:
                self.known[unit] = segment
            else:
                self._stale.add(unit)
        return self.known

    def make(self, unit: int) -> Segment:
        """Tokenise and pack one unit, unless it is stored already."""
        if unit not in self.known:
            stem = keys.segment(self.corpus, unit)
            if unit in self._stale:  # of other settings: it must not vouch for what is written now
                self.store.delete(f"{stem}.json")
            with tempfile.TemporaryDirectory(prefix="kubesae-") as folder:
                segment = self._pack(unit, files := _Files(Path(folder), self.settings.context))
                self.store.put_file(f"{stem}.npy", files.contexts)
                self.store.put_file(f"{stem}.parquet", files.pieces)
            self.store.put(f"{stem}.json", canonical_json({"settings": asdict(self.settings), **asdict(segment)}))
            self.known[unit] = segment
        return self.known[unit]

    def _stored(self, unit: int) -> Segment | None:
        key = f"{keys.segment(self.corpus, unit)}.json"
        try:
            marker = parse_json_object(self.store.read(key), f"{self.store.url}/{key}")
        except MissingError:
            return None
        if marker.pop("settings", None) != asdict(self.settings):
            return None
        return Segment(**marker)

    def _pack(self, unit: int, files: _Files) -> Segment:
        settings = self.settings
        packer = Packer(settings.context, settings.bos, settings.separator)
        fresh = self.digests.of(unit) if self.digests else None
        duplicates = duplicate_tokens = 0
        with files:
            for batch in in_order(self._encode, _batches(self.source.documents(unit)), 1, ahead=1):
                for document, encoded in batch:
                    if fresh is not None and not fresh.add(document.digest):
                        duplicates += 1
                        duplicate_tokens += len(encoded.ids)
                    else:
                        packer.add(document.name, encoded)
                files.write(*packer.take(), settings.limit)
                if len(packer) >= settings.limit:
                    break
            else:
                if fresh is not None:
                    fresh.store()
        return Segment(files.written, duplicates, duplicate_tokens)

    def _encode(self, batch: list[TextDocument]) -> list[tuple[TextDocument, Encoded]]:
        if self.renderer is None:
            return list(zip(batch, self.tokenizer.encode([document.text for document in batch]), strict=True))
        texts = [self.renderer.render(document.messages, document.name) for document in batch]
        bare = [
            encoded.bare(self.settings.bos, self.settings.separator) for encoded in self.tokenizer.encode_marked(texts)
        ]
        return list(zip(batch, bare, strict=True))


class _Files:
    """The files of a segment while it is packed: a context manager, at whose end they are whole."""

    def __init__(self, folder: Path, context: int) -> None:
        self.contexts, self.pieces = folder / "contexts", folder / "pieces"
        self.written = 0
        self._context = context
        self._waiting: list[Piece] = []

    def __enter__(self) -> None:
        with disk_errors(self.contexts):
            self._file = self.contexts.open("wb")
            self._header()
            self._writer = pq.ParquetWriter(self.pieces, PIECE_SCHEMA)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with disk_errors(self.contexts), self._file, self._writer:
            if kind is None:
                self._flush()
                self._file.seek(0)
                self._header()

    def write(self, contexts: npt.NDArray[np.uint32], pieces: list[Piece], limit: int) -> None:
        """Append contexts and their pieces, up to `limit` contexts in all."""
        contexts = contexts[: limit - self.written]
        self.written += len(contexts)
        self._waiting += (piece for piece in pieces if piece.context < limit)
        with disk_errors(self.contexts):
            self._file.write(contexts.astype("<u4", copy=False).tobytes())
            if len(self._waiting) >= _PIECES_AT_ONCE:
                self._flush()

    def _header(self) -> None:
        """Write the header of the npy file; its length is the same for any number of contexts."""
        shape = (self.written, self._context)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<u4", "fortran_order": False, "shape": shape})

    def _flush(self) -> None:
        columns = {name: [getattr(piece, name) for piece in self._waiting] for name in PIECE_SCHEMA.names}
        self._writer.write_table(pa.table(columns, schema=PIECE_SCHEMA))
        self._waiting.clear()


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment as the deal reads it. Its methods raise DamagedError when it is not there, or not whole."""

    store: Store
    corpus: str
    unit: int

    def pieces(self) -> pa.Table:
        """Return the table of its pieces."""
        try:
            return pq.read_table(io.BytesIO(self.store.read(f"{self._stem}.parquet")))
        except (MissingError, ValueError, OSError) as error:
            raise self._damaged(error) from error

    def read_into(self, first: int, contexts: npt.NDArray[np.uint32], context: int, in_all: int) -> None:
        """Fill `contexts`, uint32 [some, context], with those from `first` on, of `in_all`."""
        key = f"{self._stem}.npy"
        try:
            head = io.BytesIO(self.store.read(key, 0, 128))
            np.lib.format.read_magic(head)
            shape, _, dtype = np.lib.format.read_array_header_1_0(head)
            if (shape, dtype) != ((in_all, context), np.dtype("<u4")):
                raise ValueError(f"it holds {dtype} {list(shape)}")
            start = head.tell() + first * context * dtype.itemsize
            self.store.read_into(key, start, memoryview(contexts).cast("B"))
        except (MissingError, DamagedError, ValueError, EOFError) as error:
            raise self._damaged(error) from error

    @property
    def _stem(self) -> str:
        return keys.segment(self.corpus, self.unit)

    def _damaged(self, error: Exception) -> DamagedError:
        return DamagedError(
            f"The segment {self.store.url}/{self._stem} is damaged ({error}). Delete its .json and prepare again: it "
            "is made anew."
        )


def _batches(documents: Iterable[TextDocument]) -> Iterator[list[TextDocument]]:
    batch: list[TextDocument] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text) + sum(len(message["content"]) for message in document.messages)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
