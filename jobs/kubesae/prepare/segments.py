"""First step of prepare: one unit of a corpus -> one segment of packed contexts.

Each segment is a pure function of its unit and the settings, and is stored before the next is counted, so a killed
`prepare` goes on where it was. The `.json` of a segment is written last: a segment exists when it does.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from kubesae.corpus import Packer
from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import canonical_json, parse_json_object
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.corpus import HubDataset, LocalFiles, Piece, TextDocument, Tokenizer
    from kubesae.store import Store

DOCUMENTS_PER_BATCH = 64
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
    """What a segment depends on besides its unit."""

    tokenizer: str
    revision: str
    context: int
    bos: int | None
    separator: int | None
    limit: int


def make_segment(
    store: Store, tokenizer: Tokenizer, source: LocalFiles | HubDataset, corpus: str, unit: int, settings: Settings
) -> int:
    """Tokenise and pack one unit, unless it is stored already; return its number of contexts."""
    stem = keys.segment(corpus, unit)
    stored = _stored_contexts(store, stem, settings)
    if stored is not None:
        return stored
    contexts, pieces = _pack(tokenizer, source.documents(unit), settings)
    out = io.BytesIO()
    np.save(out, contexts, allow_pickle=False)
    store.put(f"{stem}.npy", out.getvalue())
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(piece) for piece in pieces], schema=PIECE_SCHEMA), out)
    store.put(f"{stem}.parquet", out.getvalue())
    store.put(f"{stem}.json", canonical_json({"settings": asdict(settings), "contexts": len(contexts)}))
    return len(contexts)


def read_segment(store: Store, corpus: str, unit: int) -> tuple[npt.NDArray[np.uint32], pa.Table]:
    """Return a stored segment: contexts, uint32 [contexts, context], and the table of its pieces.

    Raises:
        DamagedError: it is not there, or not whole.

    """
    stem = keys.segment(corpus, unit)
    try:
        contexts = np.load(io.BytesIO(store.read(f"{stem}.npy")), allow_pickle=False)
        return contexts, pq.read_table(io.BytesIO(store.read(f"{stem}.parquet")))
    except (MissingError, ValueError, OSError, EOFError) as error:
        raise DamagedError(
            f"The segment {store.url}/{stem} is damaged ({error}). Delete its .json and prepare again: it is made anew."
        ) from error


def _stored_contexts(store: Store, stem: str, settings: Settings) -> int | None:
    try:
        marker = parse_json_object(store.read(f"{stem}.json"), f"{store.url}/{stem}.json")
    except MissingError:
        return None
    return int(marker["contexts"]) if marker.get("settings") == asdict(settings) else None


def _pack(
    tokenizer: Tokenizer, documents: Iterable[TextDocument], settings: Settings
) -> tuple[npt.NDArray[np.uint32], list[Piece]]:
    packer = Packer(settings.context, settings.bos, settings.separator)
    remaining = iter(documents)
    while len(packer) < settings.limit and (batch := list(itertools.islice(remaining, DOCUMENTS_PER_BATCH))):
        for document, encoded in zip(batch, tokenizer.encode([d.text for d in batch]), strict=True):
            packer.add(document.name, encoded)
    contexts, pieces = packer.finish()
    return contexts[: settings.limit], [piece for piece in pieces if piece.context < settings.limit]
