"""Logarithmic bins of activations: two to the octave, read off the bits of a float32, so no bin depends on rounding.

Bin b begins at 2^(b // 2 - 16), times 1.5 where b is odd. Bin 0 holds everything below as well, the last one everything
above: 2^-16 to 2^16 are told apart.

F = features, B = bins, N = entries.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BINS = 64
BINS_PER_OCTAVE = 2
LOWEST_OCTAVE = -16
# Exponent and highest bit of the mantissa are the upper bits of a positive float32.
_SHIFT = 22
_FIRST = (127 + LOWEST_OCTAVE) * BINS_PER_OCTAVE


def bins(value_N: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Bin of each activation, which must be above 0 and finite."""
    above = (value_N.view(np.uint32) >> _SHIFT).astype(np.int64) - _FIRST
    return np.clip(above, 0, BINS - 1)


def edges() -> npt.NDArray[np.float64]:
    """Where each bin begins, and after the last one where it ends, [B + 1]."""
    octave, half = np.divmod(np.arange(BINS + 1), BINS_PER_OCTAVE)
    begin: npt.NDArray[np.float64] = np.ldexp(1 + half / BINS_PER_OCTAVE, octave + LOWEST_OCTAVE)
    return begin


def quantiles(
    count_FB: npt.NDArray[np.int64], feature_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Share of its feature's activations that lie below each of these: an estimate, even within a bin, in [0, 1).

    Args:
        count_FB: activations of each feature by bin.
        feature_N: features.
        value_N: activations, each counted in its feature's bins.

    """
    bin_N, edge = bins(value_N), edges()
    within_N = np.clip((value_N - edge[bin_N]) / np.diff(edge)[bin_N], 0, np.nextafter(1, 0))
    own_N = count_FB[feature_N, bin_N]
    below_N = np.cumsum(count_FB, axis=1)[feature_N, bin_N] - own_N
    share_N = (below_N + within_N * own_N) / count_FB.sum(1)[feature_N]
    below_one: npt.NDArray[np.float64] = np.minimum(share_N, np.nextafter(1, 0))  # where the sum is rounded up to 1
    return below_one
