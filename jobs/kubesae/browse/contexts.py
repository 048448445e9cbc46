"""The rows that the page shows of each feature, as JSON: tokens of a context, with the activation on each.

Token text is written once for each token of the vocabulary that occurs, so a context costs a look-up a token.
Legend: F features, E shown rows, T tokens of all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kubesae.browse.packing import compact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus import Vocabulary


@dataclass(frozen=True, slots=True)
class Words:
    """Texts of tokens, and the same as JSON. `pieces` says how a token reads by itself."""

    text: dict[int, str]
    quoted: dict[int, str]

    @classmethod
    def of(cls, vocabulary: Vocabulary, ids: npt.NDArray[np.int64]) -> Words:
        """Look up every token of `ids`, which may come several times; -1 is none."""
        known = np.unique(ids[ids >= 0]).tolist()
        text = dict(zip(known, vocabulary.pieces(known), strict=True))
        return cls(text, {token: compact(one) for token, one in text.items()})


@dataclass(frozen=True, slots=True)
class Contexts:
    """Rows of every feature, with their contexts, by feature.

    Attributes:
        offset_F: int64 [F + 1], where the rows of each feature begin.
        start_E: int64 [E + 1], where the tokens of each row begin.
        at_E: int64 [E], which of them is the row itself.
        row_E: int64 [E], global row.
        token_T: int64 [T], token ids.
        value_T: float32 [T], the feature's activation on each.
        origin_E: JSON fields that say where each row is from.

    """

    offset_F: npt.NDArray[np.int64]
    start_E: npt.NDArray[np.int64]
    at_E: npt.NDArray[np.int64]
    row_E: npt.NDArray[np.int64]
    token_T: npt.NDArray[np.int64]
    value_T: npt.NDArray[np.float32]
    origin_E: Sequence[str]

    @classmethod
    def of(cls, table: pa.Table, features: int) -> Contexts:
        """Take in a table of examples or samples (`kubesae.features.stored`)."""
        table = table.combine_chunks()
        before_E = pc.list_value_length(table["before"]).to_numpy().astype(np.int64)
        after_E = pc.list_value_length(table["after"]).to_numpy().astype(np.int64)
        start_E = np.concatenate([[0], np.cumsum(before_E + 1 + after_E)])
        token_T = np.empty(start_E[-1], np.int64)
        token_T[start_E[:-1] + before_E] = table["token"].to_numpy()
        token_T[_places(start_E[:-1], before_E)] = _flat(table["before"])
        token_T[_places(start_E[:-1] + before_E + 1, after_E)] = _flat(table["after"])
        return cls(
            offset_F=np.searchsorted(table["feature"].to_numpy(), np.arange(features + 1)),
            start_E=start_E,
            at_E=before_E,
            row_E=table["row"].to_numpy(),
            token_T=token_T,
            value_T=_flat(table["activations"]).astype(np.float32),
            origin_E=_origins(table),
        )

    def tokens_E(self) -> npt.NDArray[np.int64]:
        """Return the token of each row itself."""
        tokens: npt.NDArray[np.int64] = self.token_T[self.start_E[:-1] + self.at_E]
        return tokens

    def key(self, row: int) -> bytes:
        """Return what is the same of two rows that show the same tokens."""
        return self.token_T[self.start_E[row] : self.start_E[row + 1]].tobytes()

    def to_json(self, row: int, words: Words, *, repeated: bool) -> str:
        """Return one shown row in the shape of circuit-tracer's examples, and where it is from."""
        here = slice(self.start_E[row], self.start_E[row + 1])
        tokens = ",".join([words.quoted[token] for token in self.token_T[here].tolist()])
        values = ",".join([short(value) if value else "0" for value in self.value_T[here].tolist()])
        return (
            f'{{"tokens_acts_list":[{values}],"train_token_ind":{self.at_E[row]},'
            f'"is_repeated_datapoint":{"true" if repeated else "false"},"tokens":[{tokens}],'
            f'"row":{self.row_E[row]},{self.origin_E[row]}}}'
        )


def short(value: float) -> str:
    """Return a number with three significant digits, as JSON has it."""
    return f"{value:.3g}"


def rounded(value: float) -> float | None:
    """Return a number with three significant digits; None for one that JSON does not have."""
    return float(short(value)) if math.isfinite(value) else None


def _places(first_E: npt.NDArray[np.int64], count_E: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return `first`, `first + 1`, ... of each, `count` of them."""
    within: npt.NDArray[np.int64] = np.arange(int(count_E.sum())) - np.repeat(np.cumsum(count_E) - count_E, count_E)
    within += np.repeat(first_E, count_E)
    return within


def _flat(column: pa.ChunkedArray) -> npt.NDArray[np.generic]:
    flat: npt.NDArray[np.generic] = pc.list_flatten(column).to_numpy()
    return flat


def _origins(table: pa.Table) -> list[str]:
    """Return the JSON fields corpus, document and offset of each row; null where it belongs to no document."""
    corpora, documents = (table[name].to_pylist() for name in ("corpus", "document"))
    quoted = {name: compact(name) for name in {*corpora, *documents}}
    offsets = ["null" if offset is None else str(offset) for offset in table["offset"].to_pylist()]
    return [
        f'"corpus":{quoted[corpus]},"document":{quoted[document]},"offset":{offset}'
        for corpus, document, offset in zip(corpora, documents, offsets, strict=True)
    ]
