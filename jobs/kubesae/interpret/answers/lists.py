"""Columns of lists, and how many of each. N = all values, F = rows of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    import numpy.typing as npt


def lists(value_N: npt.NDArray[np.generic], length_F: npt.NDArray[np.int64], kind: pa.DataType) -> pa.ListArray:
    """Return a column whose list i is the next `length_F[i]` of the values."""
    offset_F = np.concatenate([[0], np.cumsum(length_F)])
    return pa.ListArray.from_arrays(pa.array(offset_F, pa.int32()), pa.array(value_N).cast(kind))
