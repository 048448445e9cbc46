"""Mergeable statistics of features: exact sums, a histogram, the largest activations, and samples of rows.

    statistics = Statistics.zero(features, top_k=20, samples=20)
    statistics.add(row_N, feature_N, value_N, rows=4096, flagged=0)
    statistics.merge(of_other_rows)                         # the bits of one pass over everything

Merging is associative and does not depend on order, to the bit, so any number of workers give what one gives. What is
kept of a feature: 48 bytes of sums, 512 of the histogram, and 20 for each of `top_k` largest activations, `samples`
random rows, and 4 rows of each of 16 strata: with 20 and 20, 2.6 kB; where nothing is compiled (`kept`), 28 bytes more
for each of as many rows, 5.6 kB.

A row's stratum is the bin of its activation, counted modulo 16. So activations in the same half octave share one, and
so do those that are 2^8 apart. From 16 small samples every decile of a feature has rows to show, which are known only
when everything was seen.

F = features, B = bins, N = active entries of some rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kubesae.errors import KubesaeError
from kubesae.interpret.histogram import BINS, bins
from kubesae.interpret.kept import Kept, by_hash, by_value
from kubesae.interpret.sums import ExactSums

STRATA = 16
PER_STRATUM = 4


@dataclass
class Statistics:
    """Statistics of F features over a set of rows.

    Attributes:
        rows: unflagged rows that were seen.
        flagged: rows that were left out.
        sums: of each feature's activations.
        squares: sums of their squares.
        histogram_FB: int64 [F, B], active rows of each feature by bin of their activation.
        top: the largest activations of each feature.
        sample: random active rows of each feature.
        strata: random active rows of each stratum: cells feature * STRATA + stratum.

    """

    rows: int
    flagged: int
    sums: ExactSums
    squares: ExactSums
    histogram_FB: npt.NDArray[np.int64]
    top: Kept
    sample: Kept
    strata: Kept

    @classmethod
    def zero(cls, features: int, top_k: int, samples: int) -> Statistics:
        """Statistics of no rows."""
        return cls(
            rows=0,
            flagged=0,
            sums=ExactSums.zero(features),
            squares=ExactSums.zero(features),
            histogram_FB=np.zeros((features, BINS), np.int64),
            top=Kept.zero(features, top_k),
            sample=Kept.zero(features, samples),
            strata=Kept.zero(features * STRATA, PER_STRATUM),
        )

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
            rows: unflagged rows among which these entries are, fewer than 2^27.
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
        wide_N, bin_N, hash_N = value_N.astype(np.float64), bins(value_N), by_hash(row_N)
        self.sums.add(feature_N, wide_N)
        self.squares.add(feature_N, wide_N * wide_N)
        np.add.at(self.histogram_FB.reshape(-1), feature_N * BINS + bin_N, 1)
        self.top.add(feature_N, by_value(value_N), value_N, row_N)
        self.sample.add(feature_N, hash_N, value_N, row_N)
        self.strata.add(feature_N * STRATA + bin_N % STRATA, hash_N, value_N, row_N)

    def merge(self, other: Statistics) -> None:
        """Count the rows of `other` too, in place; no row may be in both.

        Raises:
            ValueError: they are of other sizes.
            KubesaeError: activations are too large to be summed exactly.

        """
        pairs = [(self.top, other.top), (self.sample, other.sample), (self.strata, other.strata)]
        if any(mine.row_CK.shape != theirs.row_CK.shape for mine, theirs in pairs):
            raise ValueError(f"statistics of [features, K] {other.top.row_CK.shape} do not add to these")
        self.rows += other.rows
        self.flagged += other.flagged
        self.sums.merge(other.sums)
        self.squares.merge(other.squares)
        self.histogram_FB += other.histogram_FB
        for mine, theirs in pairs:
            mine.merge(theirs)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take now."""
        sums = self.sums.words_WF.nbytes + self.squares.words_WF.nbytes + self.histogram_FB.nbytes
        return sums + self.top.nbytes + self.sample.nbytes + self.strata.nbytes

    @property
    def count_F(self) -> npt.NDArray[np.int64]:
        """Rows on which each feature is active (above 0)."""
        count: npt.NDArray[np.int64] = self.histogram_FB.sum(1)
        return count

    @property
    def max_F(self) -> npt.NDArray[np.float32]:
        """Largest activation of each feature, 0 for one that was never active."""
        return self.top.first()

    @property
    def mean_F(self) -> npt.NDArray[np.float64]:
        """Mean activation over all unflagged rows, those where the feature is inactive included."""
        return self.sums.total_F / max(self.rows, 1)

    @property
    def mean_active_F(self) -> npt.NDArray[np.float64]:
        """Mean activation over the rows where the feature is active; 0 where there are none."""
        return self.sums.total_F / np.maximum(self.count_F, 1)

    @property
    def mean_square_active_F(self) -> npt.NDArray[np.float64]:
        """Mean of the squared activation over the rows where the feature is active; 0 where there are none."""
        return self.squares.total_F / np.maximum(self.count_F, 1)

    @property
    def std_active_F(self) -> npt.NDArray[np.float64]:
        """Standard deviation of the population of active rows; 0 where there are none."""
        deviation: npt.NDArray[np.float64] = np.sqrt(np.maximum(self.mean_square_active_F - self.mean_active_F**2, 0.0))
        return deviation

    @property
    def frequency_F(self) -> npt.NDArray[np.float64]:
        """Share of the unflagged rows on which each feature is active."""
        return self.count_F / max(self.rows, 1)


def statistics_table(statistics: Statistics, positions_FP: npt.NDArray[np.int64]) -> pa.Table:
    """Return statistics, and counts by place in the context, as a table, one row a feature.

    Columns: feature, count (active rows), max, mean (over all unflagged rows), frequency (active share of these);
    mean_active, mean_square_active, std_active (over active rows, as a population); histogram (active rows in each of
    the 64 bins of `histogram`); positions (active rows in each of the 16 bins of `positions`).
    """
    return pa.table(
        {
            "feature": pa.array(range(len(statistics.count_F)), pa.int32()),
            "count": statistics.count_F,
            "max": statistics.max_F,
            "mean": statistics.mean_F,
            "mean_active": statistics.mean_active_F,
            "mean_square_active": statistics.mean_square_active_F,
            "std_active": statistics.std_active_F,
            "frequency": statistics.frequency_F,
            "histogram": _lists(statistics.histogram_FB),
            "positions": _lists(positions_FP),
        }
    )


def _lists(count_FB: npt.NDArray[np.int64]) -> pa.ListArray:
    features, bins_each = count_FB.shape
    edges = np.arange(features + 1, dtype=np.int32) * bins_each
    return pa.ListArray.from_arrays(pa.array(edges), pa.array(count_FB.reshape(-1)))
