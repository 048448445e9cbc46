"""Pack documents into contexts of equal length. Pure: documents in, arrays out.

Documents are laid end to end, each closed by the separator, and the stream is cut every `context` tokens; a context
begins with BOS where there is one. What is left over at the end of a segment, less than a context, is dropped. Each run
of tokens of one document in one context is a *piece*, so every token traces back to document and offset.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kubesae.corpus.tokenizer import Encoded


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of one document's tokens in one context.

    Attributes:
        context: context of the segment.
        start: position in the context of the piece's first token.
        tokens: tokens of the piece, the separator included.
        document: name of the document.
        offset: token of the document at which the piece begins.
        char: character of the document at which it begins, -1 if unknown.

    """

    context: int
    start: int
    tokens: int
    document: str
    offset: int
    char: int


@dataclass
class Packer:
    """Packs one segment: `add` documents, and `take` contexts and pieces, at the end or on the way."""

    context: int
    bos: int | None
    separator: int | None
    pieces: list[Piece] = field(default_factory=list)
    _rows: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    _taken: int = 0
    _used: int = 0

    def __post_init__(self) -> None:
        """Begin the first context."""
        self._begin()

    def _begin(self) -> None:
        self._row = np.zeros(self.context, np.uint32)
        self._used = 0
        if self.bos is not None:
            self._row[0] = self.bos
            self._used = 1

    def add(self, document: str, encoded: Encoded) -> None:
        """Append a document; one without tokens adds nothing."""
        ids = encoded.ids
        if len(ids) == 0:
            return
        if self.separator is not None:
            ids = np.append(ids, np.uint32(self.separator))
        at = 0
        while at < len(ids):
            take = min(self.context - self._used, len(ids) - at)
            char = encoded.char(at) if at < len(encoded.ids) else -1
            self.pieces.append(Piece(len(self), self._used, take, document, at, char))
            self._row[self._used : self._used + take] = ids[at : at + take]
            self._used += take
            at += take
            if self._used == self.context:
                self._rows.append(self._row)
                self._begin()

    def __len__(self) -> int:
        """Whole contexts so far, those that were taken included."""
        return self._taken + len(self._rows)

    def take(self) -> tuple[npt.NDArray[np.uint32], list[Piece]]:
        """Return the whole contexts since the last time, uint32 [contexts, context], and their pieces; forget both.

        What is left over at the end, less than a context, never comes out.
        """
        contexts = np.stack(self._rows) if self._rows else np.zeros((0, self.context), np.uint32)
        self._taken += len(self._rows)
        self._rows.clear()
        whole = bisect.bisect_left(self.pieces, self._taken, key=lambda piece: piece.context)
        pieces, self.pieces = self.pieces[:whole], self.pieces[whole:]
        return contexts, pieces
