"""JSON of many records at a time, by arrow's string kernels: each column holds the JSON of one field of every record.

    records({"index": integers(index_B), "max": numbers(max_B)})        # '{"index":0,"max":1.25}' ...

B records, N values of all of them, B1 where each record's values begin, and where the last one's end.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kubesae.browse.packing import compact

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_DIGITS = 3


def rounded(value: float) -> float | None:
    """Return a number with three significant digits; None for one that JSON does not have."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def numbers(value_N: npt.NDArray[Any]) -> pa.StringArray:
    """Return the JSON of numbers, `rounded`."""
    exact_N = value_N.astype(np.float64)
    sized = np.isfinite(exact_N) & (exact_N != 0)
    exponent_N = np.floor(np.log10(np.abs(exact_N), where=sized, out=np.zeros(len(exact_N))))
    scale_N = 10.0 ** (_DIGITS - 1 - exponent_N)
    # the float32 that is nearest to a number of three digits is written with these, no others are as short
    nearest_N = (np.rint(np.where(sized, exact_N, 0.0) * scale_N) / scale_N).astype(np.float32)
    return pa.array(nearest_N, mask=~np.isfinite(exact_N)).cast(pa.string()).fill_null("null")


def mostly_zero(value_N: npt.NDArray[Any]) -> pa.StringArray:
    """Do the same, quicker where most numbers are 0."""
    place_N = np.zeros(len(value_N), np.int32)
    there = np.flatnonzero(value_N)
    place_N[there] = np.arange(1, len(there) + 1)
    return pa.concat_arrays([pa.array(["0"]), numbers(value_N[there])]).take(pa.array(place_N))


def integers(value_N: npt.NDArray[Any]) -> pa.StringArray:
    """Return whole numbers, and true and false."""
    return pa.array(value_N).cast(pa.string())


def texts(values: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Return texts, which repeat a lot, quoted; null as it is there."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    coded = whole.dictionary_encode()
    quoted = pa.array([compact(value) for value in coded.dictionary.to_pylist()], pa.string())
    return quoted.take(coded.indices).fill_null("null")


def joined(strings: pa.StringArray, edge_B1: npt.NDArray[np.int64]) -> pa.StringArray:
    """Join the strings from each edge to the next with commas."""
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(edge_B1, pa.int32()), strings), ",")


def lists(strings: pa.StringArray, edge_B1: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return a list of the strings from each edge to the next."""
    return pc.binary_join_element_wise("[", joined(strings, edge_B1), "]", "")


def tuples(*columns: str | pa.StringArray) -> pa.StringArray:
    """Return lists that have one element of each column; a string is the same in all of them."""
    return pc.binary_join_element_wise("[", pc.binary_join_element_wise(*columns, ","), "]", "")


def records(fields: Mapping[str, str | pa.StringArray]) -> pa.StringArray:
    """Return objects of these fields; a string is the same in all of them."""
    parts: list[str | pa.StringArray] = []
    for name, values in fields.items():
        parts += [f',"{name}":' if parts else f'{{"{name}":', values]
    return pc.binary_join_element_wise(*parts, "}", "")
