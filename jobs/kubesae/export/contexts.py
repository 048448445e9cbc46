"""The rows that are shown of each feature, as other tools take them: texts of tokens, and the activation on each.

F = features, E = shown rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.features.contexts import Contexts

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
class ShownRows:
    """The rows of a table of examples or samples (`kubesae.features.stored`), by feature.

    Attributes:
        offset_F: int64 [F + 1], where the rows of each feature begin.
        row_E: int64 [E], global row.
        contexts: their windows.

    """

    offset_F: npt.NDArray[np.int64]
    row_E: npt.NDArray[np.int64]
    contexts: Contexts

    @classmethod
    def of(cls, table: pa.Table, features: int) -> ShownRows:
        """Take in a table about `features` features."""
        offset_F = np.searchsorted(table["feature"].to_numpy(), np.arange(features + 1))
        return cls(offset_F, table["row"].to_numpy(), Contexts.of(table))

    def rows_of(self, feature: int) -> range:
        """Return the numbers of a feature's rows."""
        return range(*self.offset_F[feature : feature + 2].tolist())

    def context(self, number: int, texts: Mapping[int, str]) -> Context:
        """Return one of the rows."""
        shown = self.contexts
        here = slice(shown.start_E[number], shown.start_E[number + 1])
        tokens = [texts[token] for token in shown.token_T[here].tolist()]
        return Context(int(self.row_E[number]), tokens, exact(shown.value_T[here]), int(shown.at_E[number]))


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
