"""What the histogram of a feature says in other shapes: bins of equal width, percentiles.

A histogram has 64 bins of half an octave (docs/contracts.md); within a bin, activations are taken as evenly spread.
F features, B bins, P points of a curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
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


def equal_bins(count_FB: npt.NDArray[np.int64], most_F: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return about how many activations lie in each of EQUAL_BINS bins of equal width from 0 to the largest one.

    Args:
        count_FB: histograms.
        most_F: the largest activation of each.

    """
    x_FP, y_FP = _cumulative(count_FB, most_F)
    at = np.linspace(0, most_F.astype(np.float64), EQUAL_BINS + 1, axis=1)
    counts: npt.NDArray[np.int64] = np.rint(np.diff(_interpolated(at, x_FP, y_FP), axis=1)).astype(np.int64)
    return counts


def percentiles(count_FB: npt.NDArray[np.int64], most_F: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the activations below which 1%, 2% ... 99% of a feature's activations lie, about; arguments as there."""
    x_FP, y_FP = _cumulative(count_FB, most_F)
    share = np.arange(1, PERCENTILES + 1) / (PERCENTILES + 1)
    return _interpolated(share * y_FP[:, -1:], y_FP, x_FP)


def _cumulative(
    count_FB: npt.NDArray[np.int64], most_F: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return points (activation, how many are not above it) from 0 on; from the largest activation on, all the same."""
    last_F = count_FB.shape[1] - 1 - np.argmax(count_FB[:, ::-1] > 0, axis=1)
    most_F1 = np.maximum(most_F, _EDGES[last_F])[:, None]
    x_FP = np.where(np.arange(BINS + 1) <= last_F[:, None], _EDGES, most_F1)
    x_FP[:, 0] = 0
    y_FP = np.zeros(x_FP.shape)
    np.cumsum(count_FB, axis=1, out=y_FP[:, 1:])
    return x_FP, y_FP


def _interpolated(
    at_FN: npt.NDArray[np.float64], x_FP: npt.NDArray[np.float64], y_FP: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return each row's curve at each point, as `numpy.interp` does; where it is steep, its end."""
    after = (x_FP[:, None, :] <= at_FN[:, :, None]).sum(2).clip(1, x_FP.shape[1] - 1)
    (x0, x1), (y0, y1) = (
        (np.take_along_axis(curve, after - 1, 1), np.take_along_axis(curve, after, 1)) for curve in (x_FP, y_FP)
    )
    share = np.divide(at_FN - x0, x1 - x0, out=np.ones_like(at_FN), where=x1 > x0)
    return y0 + share.clip(0, 1) * (y1 - y0)
