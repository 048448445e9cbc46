"""How active a feature is on every token that is shown around one of its rows: a look into the sparse-code cache.

E = rows that are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kubesae.features import Codes

if TYPE_CHECKING:
    from collections.abc import Sequence


class Windows:
    """Activations over the contexts of the rows of tables, filled in from one file of the cache after the other."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        """Take tables as `contexts.examples_table` gives them; none of their contexts reaches over an edge of files."""
        self._tables = tables
        self._feature_E, self._row_E = (self._column(name).astype(np.int64) for name in ("feature", "row"))
        before_E, after_E = (self._lengths(name) for name in ("before", "after"))
        self._begin_E, self._end_E = self._row_E - before_E, self._row_E + 1 + after_E
        self._offset_E = np.concatenate([[0], np.cumsum(self._end_E - self._begin_E)])
        self._values = np.zeros(self._offset_E[-1], np.float32)

    def fill(self, codes: Codes) -> None:
        """Fill in the rows of these codes."""
        first, after = codes.first_row, codes.first_row + len(codes.kept_R)
        here = np.flatnonzero((self._row_E >= first) & (self._row_E < after))
        begin_E, end_E = self._begin_E[here], self._end_E[here]
        width_E = end_E - begin_E
        place = np.arange(width_E.sum()) + np.repeat(self._offset_E[here] - (np.cumsum(width_E) - width_E), width_E)
        self._values[place] = codes.windows(self._feature_E[here], begin_E, end_E)

    def tables(self) -> list[pa.Table]:
        """Return the tables with the column `activations`.

        It holds the feature's activation on each token of `before`, on the row itself and on each token of `after`, 0
        where the feature is not active or the row was flagged.
        """
        filled, first = [], 0
        for table in self._tables:
            offset_E = self._offset_E[first : first + len(table) + 1]
            values = self._values[offset_E[0] : offset_E[-1]]
            column = pa.ListArray.from_arrays(pa.array(offset_E - offset_E[0], pa.int32()), pa.array(values))
            filled.append(table.append_column("activations", column))
            first += len(table)
        return filled

    def _column(self, name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([table[name].to_numpy() for table in self._tables])

    def _lengths(self, name: str) -> npt.NDArray[np.int64]:
        lengths = [pc.list_value_length(table[name]).to_numpy() for table in self._tables]
        return np.concatenate(lengths).astype(np.int64)


def alone(rows: npt.NDArray[np.int64], values: npt.NDArray[np.float32], total: int) -> Codes:
    """Return codes of one feature, then number 0, over all `total` rows of the data, none of which costs memory."""
    return Codes(0, np.broadcast_to(np.True_, (total,)), np.array([0, len(rows)], np.int64), rows, values)
