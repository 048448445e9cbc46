"""The answers about features as the page needs them: looked up by feature, empty where there are none.

F = features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.browse.files import DEAD, DENSE, POSITIONAL, SINGLE_TOKEN

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from kubesae.features import Answers, Stored

DENSE_SHARE = 0.1
"""a feature that is active on more of the rows than this is dense (docs/contracts.md); where no answers say so"""
TOKENS = 4
"""so many of the tokens on which a feature is most active can be searched for"""


class Lists:
    """Columns of lists of a table with a row a feature, in numpy: a slice a feature."""

    def __init__(self, table: pa.Table | None, *names: str) -> None:
        """Take the columns `names`, whose lists are equally long in a row; all are empty where there is no table."""
        self._offsets = np.zeros(1, np.int64)
        self._values: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)] * len(names)
        if table is not None and len(table):
            columns = [table[name].combine_chunks() for name in names]
            self._offsets = columns[0].offsets.to_numpy().astype(np.int64)
            self._values = [column.values.to_numpy() for column in columns]

    def of(
        self, first: int, after: int, most: int | None = None
    ) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[Any]]]:
        """Return the lists of features `first` to `after` - 1, one array a column, and where each feature's begin.

        Of each list the first `most`.
        """
        offset_F1 = self._offsets[np.arange(first, after + 1).clip(max=len(self._offsets) - 1)]
        length_F = offset_F1[1:] - offset_F1[:-1]
        kept_F = length_F if most is None else np.minimum(length_F, most)
        edge_F1 = np.concatenate([[0], np.cumsum(kept_F)])
        place_N = np.arange(edge_F1[-1]) + np.repeat(offset_F1[:-1] - edge_F1[:-1], kept_F)
        return edge_F1, [values[place_N] for values in self._values]

    def every(self) -> list[npt.NDArray[Any]]:
        """Return the values of all features, one array a column."""
        return self._values


@dataclass(frozen=True, slots=True)
class Population:
    """How often features are active on the rows of a corpus."""

    name: str
    rows: int
    count_F: npt.NDArray[np.int64]
    mean_active_F: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Answered:
    """Answers by feature."""

    answers: Answers | None
    flags_F: npt.NDArray[np.int64]
    populations: tuple[Population, ...]

    @classmethod
    def of(cls, answers: Answers | None, statistics: pa.Table) -> Answered:
        """Take in the answers about the features of `statistics`, or None: there are none."""
        count_F, frequency_F = (statistics[name].to_numpy() for name in ("count", "frequency"))
        flags_F = np.where(count_F == 0, DEAD, 0)
        if answers is None:
            return cls(None, flags_F + DENSE * (frequency_F > DENSE_SHARE), ())
        for bit, name in ((DENSE, "dense"), (SINGLE_TOKEN, "single_token"), (POSITIONAL, "positional")):
            flags_F = flags_F + bit * answers.labels[name].to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(answers, flags_F, tuple(_populations(answers.populations, len(count_F))))


def _populations(table: pa.Table, features: int) -> list[Population]:
    names = table["population"].to_numpy(zero_copy_only=False)
    feature_N, rows_N, count_N, mean_N = (
        table[name].to_numpy() for name in ("feature", "rows", "count", "mean_active")
    )
    found = []
    for name in sorted(set(names)):
        here = np.flatnonzero(names == name)
        count_F, mean_F = np.zeros(features, np.int64), np.zeros(features, np.float32)
        count_F[feature_N[here]] = count_N[here]
        mean_F[feature_N[here]] = np.nan_to_num(mean_N[here])
        found.append(Population(name, int(rows_N[here[0]]), count_F, mean_F))
    return found


def common_tokens(stored: Stored) -> list[list[int]]:
    """Return the tokens on which each feature is most active, the most common one first, TOKENS at most."""
    tokens = stored.examples["token"].to_pylist()
    edges = np.searchsorted(stored.examples["feature"].to_numpy(), np.arange(stored.info.features + 1)).tolist()
    return [[token for token, _ in Counter(tokens[first:last]).most_common(TOKENS)] for first, last in pairwise(edges)]
