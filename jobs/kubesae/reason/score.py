"""ReasonScore: how much a feature's activity gathers around the words of reasoning, spread over these words.

    ReasonScore_i = mean_i(R) / sum_j mean_j(R) * H_i^alpha - mean_i(not R) / sum_j mean_j(not R)

(arXiv 2503.18878, section 3.) R: tokens of a reasoning word, and around it those in a window; H_i: entropy of feature
i's mean activation over the words, divided by the logarithm of their number. The published code counts all words of its
list, with those that never occur as mean 0; so does this. Alpha, window and words are those of that code
(`extraction/scripts/compute_score.sh`, `reason_tokens.json`). Legend: R rows, N entries, F features, W words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kubesae.features import Codes

ALPHA = 0.7
BEFORE, AFTER = 1, 2
"""tokens around a word that count as it"""
_CASED = ("alternatively", "hmm", "maybe", "wait", "perhaps", "let me", "therefore", "however")
WORDS: tuple[tuple[str, ...], ...] = (
    *((word, f" {word}", word.capitalize(), f" {word.capitalize()}") for word in _CASED),
    ("But",),
    ("Another",),
)
"""each a word, in the ways that it is written"""
_EPSILON = 1e-12


def word_rows(
    traces: Sequence[npt.NDArray[np.uint32]],
    encode: Callable[[str], npt.NDArray[np.uint32]],
    words: Sequence[Sequence[str]] = WORDS,
) -> npt.NDArray[np.bool_]:
    """Return for each word which tokens of all traces, one after the other, belong to it, [W, R]."""
    spelled = [[encode(way) for way in ways] for ways in words]
    found_WR = np.zeros((len(words), sum(map(len, traces))), np.bool_)
    first = 0
    for ids_T in traces:
        for number, ways in enumerate(spelled):
            for ids in ways:
                for at in _places(ids_T, ids):
                    begin, end = max(at - BEFORE, 0), min(at + len(ids) + AFTER, len(ids_T))
                    found_WR[number, first + begin : first + end] = True
        first += len(ids_T)
    return found_WR


def _places(ids_T: npt.NDArray[np.uint32], wanted: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return where a run of ids begins in others."""
    last = len(ids_T) - len(wanted) + 1
    if last <= 0 or not len(wanted):
        return np.zeros(0, np.int64)
    same = np.ones(last, np.bool_)
    for place, token in enumerate(wanted):
        same &= ids_T[place : place + last] == token
    return np.flatnonzero(same)


def reason_score(
    files: Iterable[Codes], words_WR: npt.NDArray[np.bool_], features: int, alpha: float = ALPHA
) -> npt.NDArray[np.float64] | None:
    """Return the score of each feature, float64 [F]; None where no reasoning word stands in the text.

    Args:
        files: sparse codes of all rows, in row order, which begin at row 0; flagged rows count nowhere.
        words_WR: for each word its rows.
        features: F.
        alpha: how much a feature that is active around few words alone loses.

    """
    words = len(words_WR)
    sums_WF, sum_FR = np.zeros((words, features)), np.zeros((2, features))
    rows_W, rows_2 = np.zeros(words), np.zeros(2)
    any_R = np.asarray(words_WR.any(0))
    for codes in files:
        at_R = codes.first_row + np.flatnonzero(codes.kept_R)
        rows_W += words_WR[:, at_R].sum(1)
        rows_2 += (~any_R[at_R]).sum(), any_R[at_R].sum()
        row_N = codes.first_row + codes.row_N.astype(np.int64)
        feature_N, value_N = codes.features_N(), codes.value_N.astype(np.float64)
        for side, chosen_N in enumerate((~any_R[row_N], any_R[row_N])):
            sum_FR[side] += np.bincount(feature_N[chosen_N], value_N[chosen_N], features)
        for number in range(words):
            chosen_N = words_WR[number, row_N]
            sums_WF[number] += np.bincount(feature_N[chosen_N], value_N[chosen_N], features)
    if not rows_2[1]:
        return None
    mean_WF = sums_WF / np.maximum(rows_W, 1)[:, None]
    share_WF = mean_WF / (mean_WF.sum(0) + _EPSILON)
    log_WF = np.log(share_WF, out=np.zeros_like(share_WF), where=share_WF > 0)
    spread_F = -(share_WF * log_WF).sum(0) / np.log(words) if words > 1 else np.ones(features)
    without_F, with_F = sum_FR / np.maximum(rows_2, 1)[:, None]
    own_F = with_F / (with_F.sum() + _EPSILON) * np.maximum(spread_F, 0) ** alpha
    score_F: npt.NDArray[np.float64] = own_F - without_F / (without_F.sum() + _EPSILON)
    return score_F
