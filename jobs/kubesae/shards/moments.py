"""Mergeable moments of one part and layer: per-dimension sums and a histogram of norms.

Addition merges them, so the moments of a layer are those of its parts added in plan order. Sums run over unflagged
rows, in float64; the histogram counts every row. Stored as npz (no pickle), byte-reproducible.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError
from kubesae.shards.block_scaled import TILE

if TYPE_CHECKING:
    from kubesae.shards.codecs import Stored

# Norm bins: eight to the octave from 2^-16 to 2^24, an underflow and an overflow bin around them.
BINS_PER_OCTAVE = 8
LOWEST_OCTAVE = -16
HIGHEST_OCTAVE = 24
BINS = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE + 2


@dataclass(frozen=True)
class Moments:
    """Moments of a set of rows.

    Attributes:
        rows: all rows.
        count: unflagged rows; `total` and `squares` run over these.
        total: float64 [d_model], sum of each dimension.
        squares: float64 [d_model], sum of squares of each dimension.
        histogram: int64 [BINS], norms of all rows.

    """

    rows: int
    count: int
    total: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, d_model: int) -> Moments:
        """Moments of no rows."""
        return cls(0, 0, np.zeros(d_model), np.zeros(d_model), np.zeros(BINS, np.int64))

    @classmethod
    def of(cls, stored: Stored, flags: npt.NDArray[np.uint8]) -> tuple[Moments, npt.NDArray[np.float32]]:
        """Moments of a block's rows, as stored, with their `flags` [rows]; and their norms.

        One pass in tiles that stay in the processor's cache. The float64 squares are exact, and the order of the sums
        is fixed: the same rows give the same bits.
        """
        d_model = stored.acts.shape[1]
        total, squares, norms = np.zeros(d_model), np.zeros(d_model), np.empty(len(stored), np.float32)
        step = max(1, min(TILE // d_model, len(stored)))
        narrow, wide = np.empty((step, d_model), np.float32), np.empty((step, d_model))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite shows in the norms
            for first in range(0, len(stored), step):
                rows = slice(first, first + step)
                x = stored.float32(rows, narrow[: len(norms[rows])])
                np.sqrt(np.einsum("rd,rd->r", x, x), out=norms[rows])
                kept = np.flatnonzero(flags[rows] == 0)
                y = wide[: len(kept)]
                np.copyto(y, x if len(kept) == len(x) else x[kept])
                total += np.add.reduce(y, axis=0)
                np.multiply(y, y, out=y)
                squares += np.add.reduce(y, axis=0)
            histogram = np.bincount(norm_bins(norms), minlength=BINS)
        return cls(len(stored), int((flags == 0).sum()), total, squares, histogram), norms

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of rows."""
        return Moments(
            self.rows + other.rows,
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.histogram + other.histogram,
        )

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of the unflagged rows, [d_model]."""
        return self.total / max(self.count, 1)

    @property
    def variance(self) -> npt.NDArray[np.float64]:
        """Population variance of the unflagged rows, [d_model]."""
        return np.maximum(self.squares / max(self.count, 1) - self.mean**2, 0.0)

    def to_bytes(self) -> bytes:
        """Return the moments as an npz file: the same bytes for the same values."""
        out = io.BytesIO()
        np.savez(
            out,
            allow_pickle=False,
            rows=np.int64(self.rows),
            count=np.int64(self.count),
            total=self.total,
            squares=self.squares,
            histogram=self.histogram,
        )
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Moments:
        """Read what `to_bytes` wrote. Raises DamagedError, naming `where`, when it is not that."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                moments = cls(int(file["rows"]), int(file["count"]), file["total"], file["squares"], file["histogram"])
        except Exception as error:  # for damaged bytes numpy and zipfile raise a dozen kinds, none a fault of ours
            raise DamagedError(f"{where} is not a moments file: {error!r}. Run `kubesae repair`.") from error
        if moments.total.shape != moments.squares.shape or moments.histogram.shape != (BINS,):
            raise DamagedError(f"{where} holds moments of other shapes. Run `kubesae repair`.")
        types = moments.total.dtype.str, moments.squares.dtype.str, moments.histogram.dtype.str
        if types != ("<f8", "<f8", "<i8"):
            raise DamagedError(f"{where} holds moments of other types. Run `kubesae repair`.")
        return moments


def norm_bins(norms: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Bin of each norm: 0 is underflow (zero included), BINS - 1 overflow."""
    with np.errstate(divide="ignore"):
        octaves = np.log2(norms.astype(np.float64)) - LOWEST_OCTAVE
    bins = np.floor(np.clip(octaves, -1.0, HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE).astype(np.int64) + 1
    clipped: npt.NDArray[np.int64] = np.clip(bins, 0, BINS - 1)
    return clipped
