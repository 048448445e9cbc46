"""What the histogram of a feature says in other shapes: bins of equal width, percentiles.

A histogram has 64 bins of half an octave (docs/contracts.md); within a bin, activations are taken as evenly spread.
B = bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 64
EQUAL_BINS = 40
PERCENTILES = 99


def edges_B() -> npt.NDArray[np.float64]:
    """Return where each bin begins, and after the last one where it ends, [B + 1]."""
    octave, half = np.divmod(np.arange(BINS + 1), 2)
    edges: npt.NDArray[np.float64] = np.ldexp(1 + half / 2, octave - 16)
    return edges


_EDGES = edges_B()


def _cumulative(count_B: npt.NDArray[np.int64], most: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return points (activation, how many are not above it) from 0 to the largest activation, `most`, above 0."""
    last = int(np.flatnonzero(count_B)[-1])
    edges = np.concatenate([[0.0], _EDGES[1 : last + 1], [max(most, float(_EDGES[last]))]])
    return edges, np.concatenate([[0], np.cumsum(count_B[: last + 1])])


def equal_bins(count_B: npt.NDArray[np.int64], most: float) -> list[int]:
    """Return about how many activations lie in each of EQUAL_BINS bins of equal width from 0 to `most`; none: []."""
    if not count_B.any():
        return []
    edges, below = _cumulative(count_B, most)
    at = np.interp(np.linspace(0, most, EQUAL_BINS + 1), edges, below)
    return [round(count) for count in np.diff(at).tolist()]


def percentiles(count_B: npt.NDArray[np.int64], most: float) -> list[float]:
    """Return the activations below which 1%, 2% ... 99% of a feature's activations lie, about; none: []."""
    if not count_B.any():
        return []
    edges, below = _cumulative(count_B, most)
    share = np.arange(1, PERCENTILES + 1) / (PERCENTILES + 1)
    return [float(value) for value in np.interp(share * below[-1], below, edges)]


def log_bins(count_B: npt.NDArray[np.int64]) -> dict[str, object]:
    """Return the histogram as it is, without the empty bins at both ends: its first bin, and the counts from there."""
    found = np.flatnonzero(count_B)
    if not len(found):
        return {"first": 0, "counts": []}
    return {"first": int(found[0]), "counts": count_B[found[0] : found[-1] + 1].tolist()}
