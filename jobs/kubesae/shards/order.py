"""The order of the data: permutations that are pure functions of integers.

A library's random generator may give another stream in its next version, and a resumed run would then see some rows
twice and others never. So the order comes from splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom
number generators"), an integer hash of a few lines, and a stable sort.

    >>> permutation(8, 0, 0).tolist()
    [7, 3, 2, 4, 6, 0, 5, 1]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST = np.uint64(31)


def permutation(length: int, *keys: int) -> npt.NDArray[np.int64]:
    """Return the numbers 0 to `length` - 1 in an order that `keys` decide, each key >= 0."""
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = _splitmix(np.add(state, np.uint64(key), dtype=np.uint64))
    return np.argsort(_splitmix(np.add(state, np.arange(length, dtype=np.uint64), dtype=np.uint64)), kind="stable")


def _splitmix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values + np.uint64(1)) * _GAMMA
    for shift, factor in _MIX:
        values = (values ^ (values >> shift)) * factor
    return values ^ (values >> _LAST)
