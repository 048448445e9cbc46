"""Mean activations of texts, sparse: a text is a window of rows of a sparse-code cache, and stands for one observation.

Tokens of one text are anything but independent, and texts of different lengths do not compare: a feature that is active
on one token in a hundred is active somewhere in most long texts and in few short ones. So tests are over texts, one
value each, and both sides of a contrast are cut to the same lengths.

Memory: an entry for each pair of a text and a feature that is active in it, at most texts * min(F, tokens * k), beside
one file of the cache at a time. Legend: S texts, N entries, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.features import Codes


@dataclass(frozen=True, slots=True)
class Means:
    """Of each text and feature, sparse, by feature and text.

    Attributes:
        features: F.
        tokens_S: int64 [S], unflagged tokens of each text.
        text_N: int64 [N], the text of each entry.
        feature_N: int64 [N], its feature.
        mean_N: float64 [N], mean activation over the text's unflagged tokens, above 0.
        count_N: int64 [N], tokens of the text on which the feature is active.

    """

    features: int
    tokens_S: npt.NDArray[np.int64]
    text_N: npt.NDArray[np.int64]
    feature_N: npt.NDArray[np.int64]
    mean_N: npt.NDArray[np.float64]
    count_N: npt.NDArray[np.int64]

    @property
    def texts(self) -> int:
        """How many texts there are, those without an active feature included."""
        return len(self.tokens_S)

    @property
    def active_F(self) -> npt.NDArray[np.int64]:
        """Tokens on which each feature is active."""
        return np.bincount(self.feature_N, self.count_N, self.features).astype(np.int64)

    def where(self, chosen_S: npt.NDArray[np.bool_]) -> Means:
        """Return those of the texts for which `chosen_S` is true, numbered anew."""
        number_S = np.cumsum(chosen_S) - 1
        kept_N = chosen_S[self.text_N]
        text_N = number_S[self.text_N[kept_N]]
        feature_N, mean_N, count_N = self.feature_N[kept_N], self.mean_N[kept_N], self.count_N[kept_N]
        return Means(self.features, self.tokens_S[chosen_S], text_N, feature_N, mean_N, count_N)


def means_of(
    files: Iterable[Codes], begin_S: npt.NDArray[np.int64], end_S: npt.NDArray[np.int64], features: int
) -> Means:
    """Return mean activations of texts.

    Args:
        files: sparse codes, in row order.
        begin_S: first global row of each text, ascending.
        end_S: the row after its last one; texts do not overlap, and each lies within one file.
        features: F.

    """
    tokens_S = np.zeros(len(begin_S), np.int64)
    pairs, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    totals: list[npt.NDArray[np.float64]] = [np.zeros(0)]
    for codes in files:
        first, after = codes.first_row, codes.first_row + len(codes.kept_R)
        here = np.flatnonzero((begin_S >= first) & (end_S <= after) & (end_S > begin_S))
        if not len(here):
            continue
        kept_R = np.concatenate([[0], np.cumsum(codes.kept_R)])
        tokens_S[here] = kept_R[end_S[here] - first] - kept_R[begin_S[here] - first]
        row_N = codes.row_N.astype(np.int64) + first
        text_N = here[np.clip(np.searchsorted(begin_S[here], row_N, side="right") - 1, 0, None)]
        within_N = (row_N >= begin_S[text_N]) & (row_N < end_S[text_N])
        pair_N = codes.features_N()[within_N].astype(np.int64) * len(begin_S) + text_N[within_N]
        pair, place_N, count = np.unique(pair_N, return_inverse=True, return_counts=True)
        pairs.append(pair)
        weight_N = codes.value_N[within_N].astype(np.float64)
        totals.append(np.bincount(place_N, weight_N, len(pair)).astype(np.float64))
        counts.append(count.astype(np.int64))
    pair, total, count = np.concatenate(pairs), np.concatenate(totals), np.concatenate(counts)
    order = np.argsort(pair, kind="stable")
    feature_N, text_N = np.divmod(pair[order], max(len(begin_S), 1))
    return Means(features, tokens_S, text_N, feature_N, total[order] / tokens_S[text_N], count[order])
