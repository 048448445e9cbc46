"""Rank features on one half of the problems, measure them on the other.

Three rankings: by Cohen's d of reasoning against ordinary text, by ReasonScore, by |d| of right against wrong answers.
What is known of a population that is too small is said, not guessed. Legend: S texts, F features, R rows of traces.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from kubesae.reason.contrast import FEWEST, contrast
from kubesae.reason.means import means_of
from kubesae.reason.score import reason_score, word_rows
from kubesae.reason.texts import Windows, corpus_windows, trace_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubesae.features import CodeCache, Codes, Stored
    from kubesae.reason.contrast import Contrast
    from kubesae.reason.means import Means
    from kubesae.reason.traces import Traces
    from kubesae.store import Store

    Floats = npt.NDArray[np.float64]

Name = Literal["reasoning", "reason-score", "correct"]
TITLES: dict[Name, str] = {
    "reasoning": "Reasoning against ordinary text, by Cohen's d",
    "reason-score": "Reasoning, by ReasonScore",
    "correct": "Right against wrong answers, by |Cohen's d|",
}
NO_TEXT = "there is no sparse-code cache of ordinary text to compare with. Run `kubesae interpret` first"


@dataclass(frozen=True)
class Order:
    """A ranking, before its features are tested.

    Attributes:
        name: which.
        missing: why there is none; then nothing else is there.
        score_F: what features are ranked by, on the half for that.
        ranked: the features, the best first.
        ranking: the contrast on that half.
        held_out: the same on the other half.

    """

    name: Name
    missing: str = ""
    score_F: Floats = field(default_factory=lambda: np.zeros(0))
    ranked: tuple[int, ...] = ()
    ranking: Contrast | None = None
    held_out: Contrast | None = None


@dataclass(frozen=True)
class Orders:
    """All rankings, and the ReasonScore of the held-out half, float64 [F], None where no reasoning word is in it."""

    orders: tuple[Order, ...]
    reason_score_F: Floats | None


def rank(
    traces: Traces,
    output: Store,
    interpretation: Stored | None,
    encode: Callable[[str], npt.NDArray[np.uint32]],
    context: int,
    top: int,
) -> Orders:
    """Return the rankings of the features of traces.

    Args:
        traces: with their codes in `output`.
        output: where codes are.
        interpretation: of the corpus that is ordinary text; None: there is none.
        encode: returns the tokens of a text.
        context: tokens of a context of the corpus.
        top: features of each ranking that will be tested.

    """
    table, features = traces.table, traces.info.features
    first_S = table["first_row"].to_numpy().astype(np.int64)
    length_S = np.array([len(ids) for ids in table["tokens"].to_pylist()], np.int64)
    half_S = table["half"].to_numpy().astype(np.int64)
    cache = traces.cache(output)
    scores = _reason_scores(traces, cache, encode)
    windows = trace_windows(first_S, length_S, half_S, context - 1)
    mine = means_of(cache.files(), windows.begin_S, windows.end_S, features)
    orders = []
    if interpretation is None:
        orders += [Order("reasoning", NO_TEXT), Order("reason-score", NO_TEXT)]
    else:
        lengths = np.minimum(length_S, context - 1)
        corpus = corpus_windows(
            interpretation.info.codes, context, lengths[lengths > 0], interpretation.info.source.identity
        )
        theirs = means_of(_needed(interpretation.cache(output), corpus), corpus.begin_S, corpus.end_S, features)
        halves = [_contrast(mine, half_S == half, theirs, corpus.half_S == half) for half in (0, 1)]
        orders.append(_order("reasoning", halves, None, top))
        orders.append(_order("reason-score", halves, scores[0], top))
    orders.append(_correct(traces, cache, first_S, length_S, half_S, top))
    return Orders(tuple(orders), scores[1])


def _needed(cache: CodeCache, windows: Windows) -> Iterator[Codes]:
    """Return the files of a cache that windows lie in, one after the other."""
    begin_S = windows.begin_S
    listed = [
        file
        for file in cache.listed
        if np.searchsorted(begin_S, file.first_row) < np.searchsorted(begin_S, file.first_row + file.rows)
    ]
    return (cache.read(file) for file in listed)


def _correct(
    traces: Traces,
    cache: CodeCache,
    first_S: npt.NDArray[np.int64],
    length_S: npt.NDArray[np.int64],
    half_S: npt.NDArray[np.int64],
    top: int,
) -> Order:
    """Right against wrong: wrong traces are longer, often up to the limit, so all are cut to the median length."""
    correct = traces.table["correct"].to_pylist()
    known_S = np.array([one is not None for one in correct], np.bool_)
    if not known_S.any():
        return Order("correct", "no answer was scored: nothing was generated, or no problem states its answer")
    right_S = np.array([one is True for one in correct], np.bool_)
    windows = trace_windows(first_S, length_S, half_S, max(int(np.median(length_S[known_S])), 1))
    means = means_of(cache.files(), windows.begin_S, windows.end_S, traces.info.features)
    halves = [
        _contrast(means, known_S & right_S & (half_S == half), means, known_S & ~right_S & (half_S == half))
        for half in (0, 1)
    ]
    return _order("correct", halves, None, top)


def _contrast(
    a: Means, chosen_a: npt.NDArray[np.bool_], b: Means, chosen_b: npt.NDArray[np.bool_]
) -> Contrast | tuple[int, int]:
    """Return the contrast of chosen texts that have unflagged tokens; their numbers where they are too few."""
    one, other = a.where(chosen_a & (a.tokens_S > 0)), b.where(chosen_b & (b.tokens_S > 0))
    return contrast(one, other) if min(one.texts, other.texts) >= FEWEST else (one.texts, other.texts)


def _order(name: Name, halves: list[Contrast | tuple[int, int]], score_F: Floats | None, top: int) -> Order:
    """Rank by the score, else by d, among the features that are active on the half for ranking."""
    ranking, held_out = halves
    if isinstance(ranking, tuple) or isinstance(held_out, tuple):
        few, which = (ranking, "ranking") if isinstance(ranking, tuple) else (held_out, "the held-out half")
        return Order(name, f"too few texts for {which}: {few} of the two kinds, where {FEWEST} of each are needed")
    if name == "reason-score":
        if score_F is None:
            return Order(name, "no word of reasoning (wait, hmm, maybe, therefore, ...) is in the traces for ranking")
        key_F = score_F
    else:
        key_F = np.abs(ranking.d_F) if name == "correct" else ranking.d_F
        score_F = ranking.d_F
    active_F = (ranking.frequency_a_F > 0) | (ranking.frequency_b_F > 0)
    order = np.lexsort((np.arange(len(key_F)), -key_F))
    ranked = [int(feature) for feature in order if active_F[feature] and key_F[feature] > 0][:top]
    return Order(name, "", score_F, tuple(ranked), ranking, held_out)


def _reason_scores(
    traces: Traces, cache: CodeCache, encode: Callable[[str], npt.NDArray[np.uint32]]
) -> list[Floats | None]:
    """Return the ReasonScore of either half: rows of the other one count as flagged."""
    tokens = [np.array(ids, np.uint32) for ids in traces.table["tokens"].to_pylist()]
    words_WR = word_rows(tokens, encode)
    half_R = np.repeat(traces.table["half"].to_numpy(), [len(ids) for ids in tokens])
    return [
        reason_score((of_rows(codes, half_R == half) for codes in cache.files()), words_WR, traces.info.features)
        for half in (0, 1)
    ]


def of_rows(codes: Codes, chosen_R: npt.NDArray[np.bool_]) -> Codes:
    """Return codes with those rows only for which `chosen_R`, over all rows of the cache, is true."""
    row_N = codes.row_N.astype(np.int64)
    kept_N = chosen_R[codes.first_row + row_N]
    count_F = np.bincount(codes.features_N()[kept_N], minlength=codes.features)
    rows = slice(codes.first_row, codes.first_row + len(codes.kept_R))
    return replace(
        codes,
        kept_R=codes.kept_R & chosen_R[rows],
        offset_F=np.concatenate([[0], np.cumsum(count_F)]),
        row_N=row_N[kept_N],
        value_N=codes.value_N[kept_N],
    )
