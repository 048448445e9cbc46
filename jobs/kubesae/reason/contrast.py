"""Two populations of texts, feature by feature: effect sizes and tests, exact, from sparse means.

    found = contrast(wrong, correct)        # Means of either
    found.auc_F, found.d_F, found.p_F, found.adjusted_F

Only entries above 0 are looked at: zeros are counted, not stored. Every statistic is the one that the dense table
[S, F] would give. A, B: the populations; S texts, N entries, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from kubesae.reason.means import Means

    Floats = npt.NDArray[np.float64]

FEWEST = 2
"""texts of either population, without which there is no variance"""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A against B, each statistic [F].

    Attributes:
        texts_a, texts_b: texts of either.
        mean_a_F, mean_b_F: mean of the texts' means.
        d_F: Cohen's d, (mean A - mean B) / pooled standard deviation, sample variances; 0 where both are 0.
        auc_F: probability that a text of A is above one of B, ties counted half.
        frequency_a_F, frequency_b_F: share of unflagged tokens on which the feature is active.
        p_F: two-sided Mann-Whitney, by the normal approximation with ties and continuity corrected; 1 where nothing is
            active.
        adjusted_F: the same by Benjamini and Hochberg over the features that are active in a text; 1 for the others.

    """

    texts_a: int
    texts_b: int
    mean_a_F: Floats
    mean_b_F: Floats
    d_F: Floats
    auc_F: Floats
    frequency_a_F: Floats
    frequency_b_F: Floats
    p_F: Floats
    adjusted_F: Floats

    @property
    def ratio_F(self) -> Floats:
        """Frequency A over frequency B: infinite where only B is 0, 1 where both are."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_F = self.frequency_a_F / self.frequency_b_F
        return np.where((self.frequency_a_F == 0) & (self.frequency_b_F == 0), 1.0, ratio_F)


def contrast(a: Means, b: Means) -> Contrast:
    """Return A against B; each has FEWEST texts or more."""
    mean_a_F, variance_a_F = _moments(a)
    mean_b_F, variance_b_F = _moments(b)
    pooled_F = np.sqrt(((a.texts - 1) * variance_a_F + (b.texts - 1) * variance_b_F) / max(a.texts + b.texts - 2, 1))
    auc_F, p_F = _ranks(a, b)
    active_F = (a.active_F > 0) | (b.active_F > 0)
    adjusted_F = np.ones(a.features)
    adjusted_F[active_F] = benjamini_hochberg(p_F[active_F])
    return Contrast(
        texts_a=a.texts,
        texts_b=b.texts,
        mean_a_F=mean_a_F,
        mean_b_F=mean_b_F,
        d_F=over_deviation(mean_a_F - mean_b_F, pooled_F),
        auc_F=auc_F,
        frequency_a_F=a.active_F / max(int(a.tokens_S.sum()), 1),
        frequency_b_F=b.active_F / max(int(b.tokens_S.sum()), 1),
        p_F=p_F,
        adjusted_F=adjusted_F,
    )


def over_deviation(difference_F: Floats, deviation_F: Floats) -> Floats:
    """Return differences in standard deviations: 0 where both are 0, infinite where only the deviation is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference_F == 0, 0.0, difference_F / deviation_F)


def _moments(means: Means) -> tuple[Floats, Floats]:
    """Return mean and sample variance over the texts, zeros included; in two passes, so that nothing cancels."""
    texts = max(means.texts, 1)
    mean_F = np.bincount(means.feature_N, means.mean_N, means.features) / texts
    away_N = (means.mean_N - mean_F[means.feature_N]) ** 2
    zeros_F = means.texts - np.bincount(means.feature_N, minlength=means.features)
    squares_F = np.bincount(means.feature_N, away_N, means.features) + zeros_F * mean_F**2
    return mean_F, squares_F / max(means.texts - 1, 1)


def _ranks(a: Means, b: Means) -> tuple[Floats, Floats]:
    """Return AUC and p of Mann and Whitney's U, from the ranks of the entries among all texts with their zeros."""
    features, size_a, size_b = a.features, a.texts, b.texts
    feature_N = np.concatenate([a.feature_N, b.feature_N])
    value_N = np.concatenate([a.mean_N, b.mean_N])
    of_a_N = np.arange(len(feature_N)) < len(a.feature_N)
    order = np.lexsort((value_N, feature_N))
    feature_N, value_N, of_a_N = feature_N[order], value_N[order], of_a_N[order]
    count_F = np.bincount(feature_N, minlength=features)
    zeros_F = size_a + size_b - count_F
    first_F = np.cumsum(count_F) - count_F
    begin_G = np.r_[0, 1 + np.flatnonzero((np.diff(feature_N) != 0) | (np.diff(value_N) != 0))][: len(feature_N)]
    size_G = np.diff(np.r_[begin_G, len(feature_N)]).astype(np.float64)
    group_N = np.repeat(np.arange(len(begin_G)), np.diff(np.r_[begin_G, len(feature_N)]))
    # ranks from 1: the zeros come first and share theirs, as every group of equal values does
    rank_G = zeros_F[feature_N[begin_G]] + begin_G - first_F[feature_N[begin_G]] + (size_G + 1) / 2
    ranks_F = np.bincount(feature_N[of_a_N], rank_G[group_N[of_a_N]], features)
    zeros_a_F = size_a - np.bincount(feature_N[of_a_N], minlength=features)
    u_F = ranks_F + zeros_a_F * (zeros_F + 1) / 2 - size_a * (size_a + 1) / 2
    ties_F = np.bincount(feature_N[begin_G], size_G**3 - size_G, features) + zeros_F.astype(float) ** 3 - zeros_F
    total = size_a + size_b
    variance_F = size_a * size_b / 12 * (total + 1 - ties_F / (total * (total - 1)))
    distance_F = np.abs(u_F - size_a * size_b / 2) - 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        z_F = np.where(variance_F > 0, distance_F / np.sqrt(np.maximum(variance_F, 0)), -np.inf)
    p_F = np.minimum(1.0, np.array([math.erfc(z / math.sqrt(2)) for z in z_F]))
    return u_F / (size_a * size_b), p_F


def benjamini_hochberg(p: Floats) -> Floats:
    """Return p adjusted for the number of tests (Benjamini and Hochberg, 1995): the least false discovery rate."""
    if not len(p):
        return p
    order = np.argsort(p, kind="stable")[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted
