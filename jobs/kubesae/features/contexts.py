"""The rows that are shown of features, with the tokens around each: windows of a table, one after the other.

E = shown rows, T = tokens of all of their windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Contexts:
    """Windows of the rows of a table of examples or samples (`kubesae.features.stored`).

    Attributes:
        start_E: int64 [E + 1], where the tokens of each row begin.
        at_E: int64 [E], which of them is the row itself.
        token_T: int64 [T], token ids.
        value_T: float32 [T], the feature's activation on each.

    """

    start_E: npt.NDArray[np.int64]
    at_E: npt.NDArray[np.int64]
    token_T: npt.NDArray[np.int64]
    value_T: npt.NDArray[np.float32]

    @classmethod
    def of(cls, table: pa.Table) -> Contexts:
        """Take in a table."""
        before_E, after_E = (
            pc.list_value_length(table[name]).to_numpy().astype(np.int64) for name in ("before", "after")
        )
        start_E = np.concatenate([[0], np.cumsum(before_E + 1 + after_E)])
        itself_E = start_E[:-1] + before_E
        token_T = np.empty(start_E[-1], np.int64)
        token_T[itself_E] = table["token"].to_numpy()
        token_T[_runs(start_E[:-1], before_E)] = pc.list_flatten(table["before"]).to_numpy()
        token_T[_runs(itself_E + 1, after_E)] = pc.list_flatten(table["after"]).to_numpy()
        return cls(start_E, before_E, token_T, pc.list_flatten(table["activations"]).to_numpy())


def _runs(first_E: npt.NDArray[np.int64], count_E: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return `first`, `first + 1`, ... of each, `count` of them."""
    begin_E = np.cumsum(count_E) - count_E
    run: npt.NDArray[np.int64] = np.arange(int(count_E.sum())) + np.repeat(first_E - begin_E, count_E)
    return run
