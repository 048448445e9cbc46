"""The K entries of each cell that come first in an order: the largest activations, or a uniform sample of rows.

A cell is a feature, or one of the strata of a feature. What comes first of all rows comes first among any of them, so
keeping it is associative and free of order, to the bit. The orders:

- `by_value`: the larger activation; of equal ones, the lower row.
- `by_hash`: the smaller hash of the global row. A row's hash does not depend on its activation, so the K smallest are a
  uniform sample of the rows on which the feature is active, the same one in every pass. The hash is one to one: no two
  rows are equal, and it need not be stored.

Most entries come after the K of their cell, soon nearly all. Compiled kernels put the others in their places at once.
Without them they are put aside, and sorted in only when as many as the table holds are there.

C = cells, K = kept of each, N = entries, P = entries put aside.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kubesae.sae import native

NO_ROW = np.iinfo(np.int64).max
_NO_ORDER = np.iinfo(np.uint64).max
_INFINITY = np.uint64(0x7F800000)  # bits of a float32
# Below so many entries, sorting in would cost more than comparing with a table that is not up to date.
_FEW = 1 << 20


class Entries(NamedTuple):
    """Entries that are kept, by cell and order."""

    cell_N: npt.NDArray[np.int64]
    place_N: npt.NDArray[np.int64]
    """0 for the first of a cell"""
    value_N: npt.NDArray[np.float32]
    row_N: npt.NDArray[np.int64]


_Aside = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass
class Kept:
    """The K first entries of each of C cells, sorted: 20 bytes for each of C x K, and what is put aside."""

    value_CK: npt.NDArray[np.float32]
    row_CK: npt.NDArray[np.int64]
    order_CK: npt.NDArray[np.uint64]
    aside: list[_Aside] = field(default_factory=list)
    waiting: int = 0
    """entries put aside"""

    @classmethod
    def zero(cls, cells: int, most: int) -> Kept:
        """Nothing is kept yet; of each cell the first `most` will be."""
        shape = (cells, most)
        return cls(np.zeros(shape, np.float32), np.full(shape, NO_ROW), np.full(shape, _NO_ORDER))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes now."""
        table = self.value_CK.nbytes + self.row_CK.nbytes + self.order_CK.nbytes
        return table + sum(array.nbytes for part in self.aside for array in part)

    def add(
        self,
        cell_N: npt.NDArray[np.int64],
        order_N: npt.NDArray[np.uint64],
        value_N: npt.NDArray[np.float32],
        row_N: npt.NDArray[np.int64],
    ) -> None:
        """Show it entries; no pair of cell and row comes twice."""
        if native.compiled() is not None:
            native.keep_first((self.value_CK, self.row_CK, self.order_CK), (cell_N, order_N, value_N, row_N))
            return
        near = np.flatnonzero(order_N <= self.order_CK[cell_N, -1])
        if len(near):
            self.aside.append((cell_N[near], order_N[near], value_N[near], row_N[near]))
            self.waiting += len(near)
            if self.waiting >= max(_FEW, self.row_CK.size):
                self._settle()

    def merge(self, other: Kept) -> None:
        """Show it what another one keeps, which need not be sorted in for that."""
        there = other.row_CK != NO_ROW
        self.add(np.nonzero(there)[0], other.order_CK[there], other.value_CK[there], other.row_CK[there])
        for part in other.aside:
            self.add(*part)

    def entries(self) -> Entries:
        """Return what is kept."""
        self._settle()
        cell_N, place_N = np.nonzero(self.row_CK != NO_ROW)
        return Entries(cell_N, place_N, self.value_CK[cell_N, place_N], self.row_CK[cell_N, place_N])

    def first(self) -> npt.NDArray[np.float32]:
        """Return the first activation of each cell, 0 where nothing is kept, [C]."""
        self._settle()
        return self.value_CK[:, 0]

    def _settle(self) -> None:
        """Sort in what was put aside."""
        if not self.aside:
            return
        cell_P, order_P, value_P, row_P = (np.concatenate(parts) for parts in zip(*self.aside, strict=True))
        self.aside.clear()
        self.waiting = 0
        cells, most = self.row_CK.shape
        new_C = np.bincount(cell_P, minlength=cells)
        touched = np.flatnonzero(new_C)
        number_C = np.cumsum(new_C > 0) - 1
        place = np.concatenate([np.repeat(np.arange(len(touched)), most), number_C[cell_P]])
        order = np.concatenate([self.order_CK[touched].ravel(), order_P])
        row = np.concatenate([self.row_CK[touched].ravel(), row_P])
        value = np.concatenate([self.value_CK[touched].ravel(), value_P])
        by_cell = np.lexsort((row, order, place))
        # The entries of a cell now lie together, the first one first; there are at least K of them.
        sizes = new_C[touched] + most
        kept = by_cell[(np.cumsum(sizes) - sizes)[:, None] + np.arange(most)]
        self.value_CK[touched], self.row_CK[touched], self.order_CK[touched] = value[kept], row[kept], order[kept]


def by_value(value_N: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Order of activations, which must be above 0 and finite: their bits as an integer grow with them."""
    return _INFINITY - value_N.view(np.uint32)


def by_hash(row_N: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Order of rows: SplitMix64 (Steele, Lea and Flood, 2014) of the row's number, a permutation of 64 bits."""
    z = (row_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return hashed
