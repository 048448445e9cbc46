"""The rows that are shown of each feature, as other tools take them: texts of tokens, and the activation on each.

F = features, E = shown rows, T = tokens of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from kubesae.corpus import Vocabulary


@dataclass(frozen=True, slots=True)
class Context:
    """A shown row: text and activation of each token of its window, and which of them it is."""

    row: int
    tokens: list[str]
    values: list[float]
    at: int

    @property
    def activation(self) -> float:
        """Its own activation."""
        return self.values[self.at]


@dataclass(frozen=True)
class Contexts:
    """The rows of a table of examples or samples (`kubesae.features.stored`), by feature.

    Attributes:
        offset_F: int64 [F + 1], where the rows of each feature begin.
        start_E: int64 [E + 1], where the tokens of each row begin.
        at_E: int64 [E], which of them is the row itself.
        row_E: int64 [E], global row.
        token_T: int64 [T], token ids.
        value_T: float32 [T], the feature's activation on each.

    """

    offset_F: npt.NDArray[np.int64]
    start_E: npt.NDArray[np.int64]
    at_E: npt.NDArray[np.int64]
    row_E: npt.NDArray[np.int64]
    token_T: npt.NDArray[np.int64]
    value_T: npt.NDArray[np.float32]

    @classmethod
    def of(cls, table: pa.Table, features: int) -> Contexts:
        """Take in a table about `features` features."""
        before_E, after_E = (pc.list_value_length(table[name]).to_numpy() for name in ("before", "after"))
        start_E = np.concatenate([[0], np.cumsum(before_E + 1 + after_E, dtype=np.int64)])
        token_T = np.empty(start_E[-1], np.int64)
        itself = np.zeros(len(token_T), np.bool_)
        itself[start_E[:-1] + before_E] = True
        # what is left are the tokens before and after each row, by turns
        place_E = np.arange(len(token_T)) - np.repeat(start_E[:-1], np.diff(start_E))
        earlier = place_E < np.repeat(before_E, np.diff(start_E))
        token_T[itself] = table["token"].to_numpy()
        token_T[earlier] = pc.list_flatten(table["before"]).to_numpy()
        token_T[~earlier & ~itself] = pc.list_flatten(table["after"]).to_numpy()
        return cls(
            offset_F=np.searchsorted(table["feature"].to_numpy(), np.arange(features + 1)),
            start_E=start_E,
            at_E=before_E.astype(np.int64),
            row_E=table["row"].to_numpy(),
            token_T=token_T,
            value_T=pc.list_flatten(table["activations"]).to_numpy(),
        )

    def rows_of(self, feature: int) -> range:
        """Return the numbers of a feature's rows."""
        return range(*self.offset_F[feature : feature + 2].tolist())

    def context(self, number: int, texts: Mapping[int, str]) -> Context:
        """Return one of the rows."""
        here = slice(self.start_E[number], self.start_E[number + 1])
        tokens = [texts[token] for token in self.token_T[here].tolist()]
        return Context(int(self.row_E[number]), tokens, exact(self.value_T[here]), int(self.at_E[number]))


def exact(values: npt.ArrayLike) -> list[float]:
    """Return numbers that have no more digits than it takes to tell these float32 from others."""
    narrow = np.asarray(values, np.float32)
    found = [0.0] * len(narrow)
    for place in narrow.nonzero()[0].tolist():  # few: a feature is rarely active
        found[place] = float(str(narrow[place]))
    return found


def token_texts(vocabulary: Vocabulary, ids: Sequence[int]) -> dict[int, str]:
    """Return the text of each token by itself, as `Vocabulary.pieces` has it: ` the` keeps its space."""
    return dict(zip(ids, vocabulary.pieces(ids), strict=True))
