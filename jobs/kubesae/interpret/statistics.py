"""Mergeable statistics of features: counts, exact sums, and the K largest activations of each with their rows.

    both = Statistics.zero(features, 20) + first_half + second_half      # the bits of one pass over everything

Merging is associative and does not depend on order, to the bit, so any number of workers give what one gives. Sums of
floats are not associative; each activation is therefore split into its whole part and a fraction in units of 2^-30, and
both are summed as integers. That is exact for float32 activations from 2^-7 on; smaller ones are rounded to 1e-9.
Of equal activations the one of the lower row counts as larger.

F = features, K = rows kept of each feature, N = active entries of some rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kubesae.errors import KubesaeError

FRACTION_BITS = 30
# Sums of one `add` are made in float64, in which integers are exact up to here.
_EXACT = 2.0**53
NO_ROW = np.iinfo(np.int64).max


@dataclass
class Statistics:
    """Statistics of F features over a set of rows.

    Attributes:
        rows: unflagged rows that were seen.
        flagged: rows that were left out.
        count_F: int64 [F], rows on which the feature is active (above 0).
        whole_F: int64 [F], sum of the whole parts of its activations.
        fraction_F: int64 [F], sum of the rest, in units of 2^-30.
        value_FK: float32 [F, K], its largest activations, descending, 0 where there are fewer than K.
        row_FK: int64 [F, K], their global rows, `NO_ROW` where there are fewer.

    """

    rows: int
    flagged: int
    count_F: npt.NDArray[np.int64]
    whole_F: npt.NDArray[np.int64]
    fraction_F: npt.NDArray[np.int64]
    value_FK: npt.NDArray[np.float32]
    row_FK: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, features: int, top_k: int) -> Statistics:
        """Statistics of no rows."""
        count, whole, fraction = np.zeros((3, features), np.int64)
        shape = (features, top_k)
        return cls(0, 0, count, whole, fraction, np.zeros(shape, np.float32), np.full(shape, NO_ROW))

    def add(
        self,
        row_N: npt.NDArray[np.int64],
        feature_N: npt.NDArray[np.int64],
        value_N: npt.NDArray[np.float32],
        *,
        rows: int,
        flagged: int,
    ) -> None:
        """Count more rows, in place.

        Args:
            row_N: global row of each entry; no row was counted before.
            feature_N: its feature; no pair of row and feature comes twice.
            value_N: its activation; entries that are 0 count as inactive.
            rows: unflagged rows among which these entries are.
            flagged: rows that were left out beside them.

        Raises:
            KubesaeError: an activation is not finite, or too large to be summed exactly.

        """
        if not np.isfinite(value_N).all():
            feature = int(feature_N[~np.isfinite(value_N)][0])
            raise KubesaeError(
                f"Feature {feature} has an activation that is not finite: the SAE is damaged. Train it "
                "again under another --sae-name."
            )
        active = value_N > 0
        if not active.all():
            row_N, feature_N, value_N = row_N[active], feature_N[active], value_N[active]
        self.rows += rows
        self.flagged += flagged
        features = len(self.count_F)
        whole_N = np.floor(value_N)
        fraction_N = np.rint((value_N - whole_N) * np.float32(1 << FRACTION_BITS))
        self.count_F += np.bincount(feature_N, minlength=features)
        self.whole_F += _exact_sums(feature_N, whole_N, features)
        self.fraction_F += _exact_sums(feature_N, fraction_N, features)
        # After the first blocks few entries are among the K largest of their feature.
        kept = value_N >= self.value_FK[feature_N, -1]
        self._insert(feature_N[kept], value_N[kept], row_N[kept])

    def __add__(self, other: Statistics) -> Statistics:
        """Statistics of both sets of rows, which must have no row in common. Raises ValueError for other F or K."""
        if self.value_FK.shape != other.value_FK.shape:
            raise ValueError(f"statistics of [features, K] {self.value_FK.shape} and {other.value_FK.shape} do not add")
        both = Statistics(
            self.rows + other.rows,
            self.flagged + other.flagged,
            self.count_F + other.count_F,
            self.whole_F + other.whole_F,
            self.fraction_F + other.fraction_F,
            self.value_FK.copy(),
            self.row_FK.copy(),
        )
        there = other.row_FK != NO_ROW
        both._insert(np.nonzero(there)[0], other.value_FK[there], other.row_FK[there])
        return both

    def _insert(
        self,
        feature_N: npt.NDArray[np.int64],
        value_N: npt.NDArray[np.float32],
        row_N: npt.NDArray[np.int64],
    ) -> None:
        """Merge entries into the K largest of their features."""
        if len(feature_N) == 0:
            return
        touched, place_N = np.unique(feature_N, return_inverse=True)
        top_k = self.value_FK.shape[1]
        place = np.concatenate([np.repeat(np.arange(len(touched)), top_k), place_N])
        value = np.concatenate([self.value_FK[touched].ravel(), value_N])
        row = np.concatenate([self.row_FK[touched].ravel(), row_N])
        order = np.lexsort((row, -value, place))
        # Each feature's entries now lie together, the largest first; it has at least K of them.
        first = np.searchsorted(place[order], np.arange(len(touched)))
        kept = order[first[:, None] + np.arange(top_k)]
        self.value_FK[touched] = value[kept]
        self.row_FK[touched] = row[kept]

    @property
    def max_F(self) -> npt.NDArray[np.float32]:
        """Largest activation of each feature, 0 for one that was never active."""
        return self.value_FK[:, 0]

    @property
    def total_F(self) -> npt.NDArray[np.float64]:
        """Sum of each feature's activations."""
        return self.whole_F + self.fraction_F / (1 << FRACTION_BITS)

    @property
    def mean_F(self) -> npt.NDArray[np.float64]:
        """Mean activation over all unflagged rows, those where the feature is inactive included."""
        return self.total_F / max(self.rows, 1)

    @property
    def mean_active_F(self) -> npt.NDArray[np.float64]:
        """Mean activation over the rows where the feature is active; 0 where there are none."""
        return self.total_F / np.maximum(self.count_F, 1)

    @property
    def frequency_F(self) -> npt.NDArray[np.float64]:
        """Share of the unflagged rows on which each feature is active."""
        return self.count_F / max(self.rows, 1)


def _exact_sums(
    feature_N: npt.NDArray[np.int64], integers_N: npt.NDArray[np.float32], features: int
) -> npt.NDArray[np.int64]:
    """Sums by feature of non-negative integers that lie in floats."""
    sums = np.bincount(feature_N, weights=integers_N, minlength=features)
    worst = int(np.argmax(sums))
    if sums[worst] >= _EXACT:
        raise KubesaeError(
            f"Feature {worst} has activations of {sums[worst]:g} together in one block, too large for an exact sum. "
            "The SAE has diverged: train it again with a lower learning rate."
        )
    return sums.astype(np.int64)
