"""A label for every feature from where it is active, without a language model; and how much of it the label says.

Of a feature's random samples, each purity is the share that agree with the best label of its kind:

- bigram: are on the same token after the same one, which is not special. A causal model sees nothing that comes after;
- token: are on the same token;
- position: are in its bin of places in the context (`positions`), for a feature that is positional;
- logit: come right before one of the tokens that its direction raises most.

The label is of the kind with the largest purity, if that is PURE or more; of equal ones the first of this list. A
bigram stands in the place of its token where it has PURE, and SPECIFIC of the token's purity or more: it says more.
Where no kind fits the feature is mixed: its purity is the largest there is, its label names the tokens that it is most
often on.

positional: of ENOUGH active rows at least, PURE or more are in one bin of places, and CONCENTRATED times as many as if
they were spread over the context like all rows. dense: active on more than DENSE of the rows. single_token: SINGLE or
more of the random samples are on the same token.

F = features, S = samples, P = bins of places, K = kinds, R = runs of equal values of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kubesae.corpus import visible
from kubesae.features.answers import LABELS
from kubesae.interpret.positions import BINS, bins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.corpus import Vocabulary
    from kubesae.features import Stored
    from kubesae.ledger import Plan

KINDS = ("bigram", "token", "position", "logit")
PURE = 0.5
SPECIFIC = 0.9
CONCENTRATED = 4.0
ENOUGH = 20
DENSE = 0.1
SINGLE = 0.9
NAMED = 3
_NONE = -1
_PAIR = 1 << 32

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Random samples of all features: feature, tokens before, on and after (-1: none), bin of the place, all [S]."""

    feature: _Ints
    before: _Ints
    token: _Ints
    after: _Ints
    place: _Ints


@dataclass(frozen=True, slots=True)
class Runs:
    """Values of each feature and how often it has them, the most often first; of equal ones the lowest; all [R]."""

    feature: _Ints
    value: _Ints
    count: _Ints

    @classmethod
    def of(cls, feature_S: _Ints, value_S: _Ints) -> Runs:
        """Count values; those below 0 are none."""
        there = value_S >= 0
        feature, value = feature_S[there], value_S[there]
        order = np.lexsort((value, feature))
        feature, value = feature[order], value[order]
        first = np.flatnonzero(np.append(True, (np.diff(feature) != 0) | (np.diff(value) != 0))[: len(feature)])
        feature, value, count = feature[first], value[first], np.diff(np.append(first, len(feature)))
        order = np.lexsort((value, -count, feature))
        return cls(feature[order], value[order], count[order])

    def best(self, features: int) -> tuple[_Ints, _Ints]:
        """Return the first value of each feature, -1 where it has none, and how often it has it, both [F]."""
        first = np.flatnonzero(np.diff(self.feature, prepend=-1))
        value_F, count_F = np.full(features, _NONE), np.zeros(features, np.int64)
        value_F[self.feature[first]], count_F[self.feature[first]] = self.value[first], self.count[first]
        return value_F, count_F

    def named(self, feature: int, most: int) -> list[int]:
        """Return the first `most` values of a feature."""
        first, last = np.searchsorted(self.feature, [feature, feature + 1])
        values: list[int] = self.value[first : min(last, first + most)].tolist()
        return values


def labels_table(
    stored: Stored, logits: pa.Table, plan: Plan, vocabulary: Vocabulary, special: tuple[int, ...]
) -> pa.Table:
    """Return the label of every feature, one row each.

    Args:
        stored: statistics, examples and samples.
        logits: of `logits_table`; empty where there are none, then no label is of the kind logit.
        plan: of the data: it says where in its context a row is.
        vocabulary: turns token ids into text.
        special: special token ids.

    """
    features = stored.info.features
    count_F = stored.statistics["count"].to_numpy()
    samples, usual_F = _samples(stored.samples, plan), _usual_bins(stored.statistics, plan.context)
    tokens = Runs.of(samples.feature, samples.token)
    next_S = np.where(_raised(samples, logits), samples.after, _NONE)
    value_FK, same_FK = _kinds(samples, tokens, usual_F, next_S, special)
    sampled_F = np.maximum(np.bincount(samples.feature, minlength=features), 1)
    share_FK = same_FK / sampled_F[:, None]
    kind_F, purity_F = share_FK.argmax(1), share_FK.max(1)
    words = _words(vocabulary, plan.context)

    def label(feature: int) -> tuple[str, str]:
        if count_F[feature] == 0:
            return "dead", "dead"
        if purity_F[feature] < PURE:
            named = [f"'{_text(vocabulary, [token])}'" for token in tokens.named(feature, NAMED)]
            return "mixed", f"mixed: {', '.join(named)}"
        kind = int(kind_F[feature])
        return KINDS[kind], words[kind](int(value_FK[feature, kind]))

    kinds, labels = zip(*map(label, range(features)), strict=True)
    examples = stored.examples
    top_F, _ = Runs.of(_ints(examples["feature"]), _ints(examples["token"])).best(features)
    return pa.table(
        {
            "feature": np.arange(features, dtype=np.int32),
            "label": pa.array(labels, pa.string()),
            "kind": pa.array(kinds, pa.string()),
            "purity": purity_F.astype(np.float32),
            "token": top_F,
            "dense": stored.statistics["frequency"].to_numpy() > DENSE,
            "single_token": tokens.best(features)[1] / sampled_F >= SINGLE,
            "positional": usual_F != _NONE,
        }
    ).cast(LABELS)


def _kinds(
    samples: Samples, tokens: Runs, usual_F: _Ints, next_S: _Ints, special: tuple[int, ...]
) -> tuple[_Ints, _Ints]:
    """Return what a label of each kind is about, and how many samples agree with it, both [F, K]."""
    features = len(usual_F)
    token_F, same_token_F = tokens.best(features)
    pair_F, same_pair_F = Runs.of(samples.feature, _pairs(samples, special)).best(features)
    written_F, _ = Runs.of(samples.feature, next_S).best(features)
    pure_F = same_pair_F >= PURE * np.bincount(samples.feature, minlength=features)
    specific_F = pure_F & (pair_F % _PAIR == token_F) & (same_pair_F >= SPECIFIC * same_token_F)
    same = (
        np.where(specific_F, same_pair_F, 0),
        np.where(specific_F, 0, same_token_F),
        np.bincount(samples.feature[samples.place == usual_F[samples.feature]], minlength=features),
        np.bincount(samples.feature[next_S >= 0], minlength=features),
    )
    return np.stack((pair_F, token_F, usual_F, written_F), 1), np.stack(same, 1)


def _words(vocabulary: Vocabulary, context: int) -> Sequence[Callable[[int], str]]:
    """Return what turns the value of a label of each of KINDS into words."""

    def place(number: int) -> str:
        first, last = 2**number - 1, min(2 ** (number + 1) - 2, context - 1)
        if number == BINS - 1:
            last = context - 1
        return f"position {first}-{last}" if last > first else f"position {first}"

    return (
        lambda pair: f"bigram '{_text(vocabulary, list(divmod(pair, _PAIR)))}'",
        lambda token: f"token '{_text(vocabulary, [token])}'",
        place,
        lambda token: f"writes '{_text(vocabulary, [token])}'",
    )


def _text(vocabulary: Vocabulary, tokens: list[int]) -> str:
    return visible(vocabulary.text(tokens))


def _samples(table: pa.Table, plan: Plan) -> Samples:
    table = table.filter(pc.equal(table["kind"], "random"))
    row_S = _ints(table["row"])
    starts = np.array([plan.global_row(shard, 0) for shard in range(plan.num_shards)])
    place_S = (row_S - starts[np.searchsorted(starts, row_S, side="right") - 1]) % plan.context
    return Samples(
        _ints(table["feature"]),
        _end(table["before"], last=True),
        _ints(table["token"]),
        _end(table["after"], last=False),
        bins(place_S),
    )


def _ints(column: pa.ChunkedArray) -> _Ints:
    values: _Ints = column.to_numpy().astype(np.int64)
    return values


def _end(column: pa.ChunkedArray, *, last: bool) -> _Ints:
    """Return the first or last value of each list, -1 of an empty one."""
    length_S = _ints(pc.list_value_length(column))
    value_N = np.append(_ints(pc.list_flatten(column)), _NONE)
    offset_S = np.cumsum(length_S)
    return np.where(length_S > 0, value_N[offset_S - 1 if last else offset_S - length_S], _NONE)


def _pairs(samples: Samples, special: tuple[int, ...]) -> _Ints:
    """Return the token before and that on which each sample is as one number, -1 where there is none."""
    ordinary = (samples.before >= 0) & ~np.isin(samples.before, special)
    return np.where(ordinary, samples.before * _PAIR + samples.token, _NONE)


def _raised(samples: Samples, logits: pa.Table) -> npt.NDArray[np.bool_]:
    """Return whether the token after each sample is one that its feature's direction raises, [S]."""
    if len(logits) == 0:
        return np.zeros(len(samples.feature), np.bool_)
    length_F = _ints(pc.list_value_length(logits["high_tokens"]))
    pair_N = np.repeat(_ints(logits["feature"]), length_F) * _PAIR + _ints(pc.list_flatten(logits["high_tokens"]))
    return np.isin(samples.feature * _PAIR + samples.after, pair_N) & (samples.after >= 0)


def _usual_bins(statistics: pa.Table, context: int) -> _Ints:
    """Return the bin of places that most of a positional feature's active rows are in; -1: it is not positional."""
    position_FP = _ints(pc.list_flatten(statistics["positions"])).reshape(-1, BINS)
    count_F1 = position_FP.sum(1, keepdims=True)
    spread_P = np.bincount(bins(np.arange(context)), minlength=BINS) / context
    share_FP = position_FP / np.maximum(count_F1, 1)
    usual_FP = (share_FP >= PURE) & (share_FP >= CONCENTRATED * spread_P) & (count_F1 >= ENOUGH)
    return np.where(usual_FP.any(1), np.where(usual_FP, share_FP, 0).argmax(1), _NONE)
