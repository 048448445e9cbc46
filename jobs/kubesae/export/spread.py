"""How the activations of each feature are spread over bins of equal width, counted exactly in the sparse codes.

Viewers draw such histograms, and cut examples into intervals of equal width, which here are runs of bins. F = features,
B = bins, N = entries of a file of codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kubesae.features import CodeCache

BINS = 50
INTERVALS = 5
_PIECE = 1 << 22


def bin_of(value_N: npt.ArrayLike, max_N: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the bin of each activation: they share what is from 0 to its feature's largest one, `max`."""
    share_N = np.asarray(value_N, np.float64) / np.asarray(max_N, np.float64)
    return np.minimum((share_N * BINS).astype(np.int64), BINS - 1)


def count(cache: CodeCache, max_F: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return how many activations of each feature are in each bin, int64 [F, B]; one file of codes is in memory."""
    count_FB = np.zeros((cache.features, BINS), np.int64)
    for codes in cache.files():
        for start in range(0, len(codes.value_N), _PIECE):
            stop = min(start + _PIECE, len(codes.value_N))
            first, after = np.searchsorted(codes.offset_F, [start, stop - 1], side="right") - 1
            edges_F = np.clip(codes.offset_F[first : after + 2], start, stop)
            feature_N = np.repeat(np.arange(first, after + 1), np.diff(edges_F))
            bin_N = bin_of(codes.value_N[start:stop], max_F[feature_N])
            counted = np.bincount((feature_N - first) * BINS + bin_N, minlength=(after + 1 - first) * BINS)
            count_FB[first : after + 1] += counted.reshape(-1, BINS)
    return count_FB


def centres(most: float) -> list[float]:
    """Return the middle of each bin, where the largest activation is `most`."""
    return [float(f"{most * (bin_ + 0.5) / BINS:.6g}") for bin_ in range(BINS)]


def interval_edges(most: float) -> list[float]:
    """Return where the intervals begin and the last one ends."""
    return [float(f"{most * i / INTERVALS:.6g}") for i in range(INTERVALS)] + [most]
