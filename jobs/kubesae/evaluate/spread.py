"""How values are spread: quantiles and histograms, of values or of counts of whole numbers.

A quantile q is the smallest value that a share of at least q of all do not exceed: always one of the values.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from kubesae.evaluate.report import Histogram, Quantiles

SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BARS = 60
_BARS_A_DECADE = 5


def quantiles(values: npt.NDArray[np.floating], counts: npt.NDArray[np.int64] | None = None) -> Quantiles:
    """Return the quantiles of `values`, of which there is one at least; `counts`: how often each comes (default: 1)."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(np.ones(len(values), np.int64) if counts is None else counts[order])
    wanted = np.maximum(1, np.ceil(np.array(SHARES) * reached[-1] - 1e-9)).astype(np.int64)
    found = values[order][np.searchsorted(reached, wanted)]
    return Quantiles(**dict(zip(Quantiles.model_fields, map(float, found), strict=True)))


def whole_numbers(counts: npt.NDArray[np.int64]) -> Histogram:
    """Return the histogram of whole numbers of which `counts[i]` are i; its edges are whole numbers, too."""
    there = np.flatnonzero(counts)
    low, high = (int(there[0]), int(there[-1])) if len(there) else (0, 0)
    width = -(-(high + 1 - low) // _BARS)
    bars = -(-(high + 1 - low) // width)
    padded = np.zeros(bars * width, np.int64)
    padded[: high + 1 - low] = counts[low : high + 1]
    edges = [float(low + i * width) for i in range(bars + 1)]
    return Histogram(edges=tuple(edges), counts=tuple(padded.reshape(bars, width).sum(1).tolist()))


def logarithms(shares: npt.NDArray[np.float64], least: float) -> Histogram:
    """Return the histogram of log10 of `shares`, each from `least`, which is below 1, to 1: five bars a decade."""
    low = math.floor(math.log10(least) * _BARS_A_DECADE)
    bars = np.clip(np.floor(np.log10(shares) * _BARS_A_DECADE + 1e-9).astype(np.int64), low, -1)
    counts = np.bincount(bars - low, minlength=-low)
    return Histogram(edges=tuple(i / _BARS_A_DECADE for i in range(low, 1)), counts=tuple(counts.tolist()))


def unit_interval(values: npt.NDArray[np.floating], bars: int = 50) -> Histogram:
    """Return the histogram of `values` over 0 to 1; what lies outside counts in the first or the last bar."""
    counts = np.bincount(np.clip((values * bars).astype(np.int64), 0, bars - 1), minlength=bars)
    return Histogram(edges=tuple(i / bars for i in range(bars + 1)), counts=tuple(counts.tolist()))
