"""At which places of a context a feature is active: counts by octave of the place, from the sparse-code cache.

Bin b counts places 2^b - 1 to 2^(b+1) - 2: 0, 1-2, 3-6, 7-14, ...; the last one everything above as well.

F = features, P = bins, R = rows, N = entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kubesae.features import Codes
    from kubesae.ledger import Plan

BINS = 16


def count_positions(codes: Codes, plan: Plan) -> npt.NDArray[np.int64]:
    """Return how often each feature of `codes`, which are of one shard, is active in each bin, int64 [F, P]."""
    _, start = plan.locate(codes.first_row)
    bin_R = bins((start + np.arange(len(codes.kept_R))) % plan.context)
    cell_N = codes.features_N().astype(np.int64) * BINS + bin_R[codes.row_N]
    counts: npt.NDArray[np.int64] = np.bincount(cell_N, minlength=codes.features * BINS).reshape(-1, BINS)
    return counts


def bins(place_R: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bin of each place. The exponent of a float64 is exact for integers below 2^53."""
    octave_R = np.frexp((place_R + 1).astype(np.float64))[1].astype(np.int64) - 1
    return np.minimum(octave_R, BINS - 1)
