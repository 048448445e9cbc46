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
    from collections.abc import Iterable

_VALUES = pa.list_(pa.float32())


def with_activations(table: pa.Table, codes: Iterable[Codes]) -> pa.Table:
    """Return a table of `contexts.examples_table` with the column `activations`.

    It holds the feature's activation on each token of `before`, on the row itself and on each token of `after`, 0
    where the feature is not active or the row was flagged.

    Args:
        table: rows with their contexts, none of which reaches over an edge between two files.
        codes: those files.

    """
    feature_E, row_E = (table[name].to_numpy().astype(np.int64) for name in ("feature", "row"))
    begin_E = row_E - pc.list_value_length(table["before"]).to_numpy()
    end_E = row_E + 1 + pc.list_value_length(table["after"]).to_numpy()
    offset_E = np.concatenate([[0], np.cumsum(end_E - begin_E)])
    values = np.zeros(offset_E[-1], np.float32)
    for one in codes:
        here = np.flatnonzero((row_E >= one.first_row) & (row_E < one.first_row + len(one.kept_R)))
        width = (end_E - begin_E)[here]
        place = np.arange(width.sum()) + np.repeat(offset_E[here] - (np.cumsum(width) - width), width)
        values[place] = one.windows(feature_E[here], begin_E[here], end_E[here])
    column = pa.ListArray.from_arrays(pa.array(offset_E, pa.int32()), pa.array(values))
    return table.append_column("activations", column)


def alone(rows: npt.NDArray[np.int64], values: npt.NDArray[np.float32], total: int) -> Codes:
    """Return codes of one feature, then number 0, over all `total` rows."""
    offset_F = np.array([0, len(rows)], np.int64)
    return Codes(0, np.ones(total, np.bool_), offset_F, rows, values)
