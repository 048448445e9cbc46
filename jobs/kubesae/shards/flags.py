"""Flags of rows. Nothing is dropped when written: readers mask flagged rows, so the choice can change later.

Bit 2 marks norm outliers, the attention sinks that many models have at a few positions (norms over 100x the median;
dictionary_learning issue 52): a row whose float32 norm is over 10x the exact median norm of the same part and layer's
rows with bits 0 and 1 clear.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kubesae.shards.layout import FIRST_POSITION, NORM_OUTLIER, SPECIAL_TOKEN

OUTLIER_RATIO = 10.0


def position_flags(
    tokens: npt.NDArray[np.uint32], positions: npt.NDArray[np.int64], special: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint8]:
    """Bits 0 and 1 of rows.

    Args:
        tokens: [rows] token ids.
        positions: [rows] position of each row in its context.
        special: token ids that count as special (BOS, EOS, padding, template tokens).

    """
    flags = np.zeros(len(tokens), np.uint8)
    flags[positions == 0] |= FIRST_POSITION
    flags[np.isin(tokens, special)] |= SPECIAL_TOKEN
    return flags


def outlier_flags(norms: npt.NDArray[np.float32], flags: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bit 2 of the rows of one part and layer: `norms` and `flags` (bits 0 and 1) are [rows]."""
    found = np.zeros(len(norms), np.uint8)
    plain = norms[flags == 0]
    if plain.size:
        median = np.median(plain.astype(np.float64))
        found[norms > OUTLIER_RATIO * median] = NORM_OUTLIER
    return found
