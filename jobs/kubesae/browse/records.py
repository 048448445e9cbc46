"""What the page shows of one feature, as JSON: the fields of circuit-tracer's viewer, and more beside them.

Theirs: transcoder_id, index, examples_quantiles (quantile_name, examples), top_logits, bottom_logits, act_min, act_max,
quantile_values (percentiles), histogram (bins of equal width), activation_frequency. docs/page.md lists ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kubesae.browse.answered import Lists
from kubesae.browse.columns import integers, lists, numbers, records, texts, tuples
from kubesae.browse.contexts import Groups
from kubesae.browse.distribution import BINS, equal_bins, percentiles
from kubesae.browse.packing import compact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from kubesae.browse.answered import Answered
    from kubesae.browse.contexts import Words
    from kubesae.features import Answers, Stored

    Fields = dict[str, str | pa.StringArray]

# Rows shown of each group; what is stored may be more. With 33 tokens each, they are most of a feature's bytes.
TOP, PER_DECILE, RANDOM = 20, 2, 10
RELATED = 10
DECILES = 10
_NUMBERS = ("count", "max", "mean", "mean_active", "std_active", "frequency")


class Records:
    """Makes the JSON of features, of many at a time.

    records = Records(stored, answered, words)
    records(12800, 12864)
    """

    def __init__(self, stored: Stored, answered: Answered, words: Words) -> None:
        """Read the columns of all features once."""
        self._sae, self._answered, self._words = stored.info.source.sae, answered, words
        group_E = DECILES - 1 - stored.samples["decile"].to_numpy().astype(np.int64)
        group_E[pc.equal(stored.samples["kind"], "random").to_numpy()] = DECILES
        deciles = {f"Decile {decile}": PER_DECILE for decile in range(DECILES, 0, -1)}
        self._top = Groups(stored.examples, np.zeros(len(stored.examples), np.int64), {"Top activations": TOP})
        self._sampled = Groups(stored.samples, group_E, deciles | {"Random": RANDOM})
        self._numbers = {name: stored.statistics[name].to_numpy() for name in _NUMBERS}
        self._histogram = Lists(stored.statistics, "histogram")
        counted = "positions" in stored.statistics.column_names  # which the first ones of this format did not count
        self._positions = Lists(stored.statistics if counted else None, "positions")
        answers = answered.answers
        self._high = _lists(answers, "logits", "high_tokens", "high_values")
        self._low = _lists(answers, "logits", "low_tokens", "low_values")
        self._neighbours = _lists(answers, "neighbours", "neighbours", "cosines")
        self._coactive = _lists(answers, "coactivation", "others", "jaccard", "npmi", "counts")

    def __call__(self, first: int, after: int) -> list[bytes]:
        """Return the JSON of features `first` to `after` - 1.

        Rows are in groups: the largest activations, each decile from the largest on, random ones.
        """
        top, sampled = (groups.to_json(first, after, self._words) for groups in (self._top, self._sampled))
        fields = self._circuit_tracer(first, after) | self._further(first, after)
        whole = records(fields | {"examples_quantiles": tuples(top, sampled)})
        made: list[bytes] = whole.cast(pa.binary()).to_pylist()
        return made

    def _circuit_tracer(self, first: int, after: int) -> Fields:
        """Return the fields of circuit-tracer's viewer, but for the examples."""
        here = slice(first, after)
        most_F = self._numbers["max"][here]
        count_FB = self._histogram.of(first, after)[1][0].reshape(-1, BINS)
        active_F = np.any(count_FB > 0, axis=1)
        return {
            "transcoder_id": compact(self._sae),
            "index": integers(np.arange(first, after)),
            "top_logits": self._tokens(self._high, first, after),
            "bottom_logits": self._tokens(self._low, first, after),
            "act_min": "0",
            "act_max": numbers(most_F),
            "quantile_values": _where(active_F, percentiles(count_FB, most_F), numbers),
            "histogram": _where(active_F, equal_bins(count_FB, most_F), integers),
            "activation_frequency": numbers(self._numbers["frequency"][here]),
            "log_histogram": _without_ends(count_FB),
        }

    def _further(self, first: int, after: int) -> Fields:
        """Return what only our page shows."""
        here, answered = slice(first, after), self._answered
        edge_F1, position = self._positions.of(first, after)
        return {
            "count": integers(self._numbers["count"][here]),
            **{name: numbers(self._numbers[name][here]) for name in ("mean", "mean_active", "std_active")},
            **_label(answered, here),
            "flags": integers(answered.flags_F[here]),
            "top_values": self._values(self._high, first, after),
            "bottom_values": self._values(self._low, first, after),
            "positions": lists(integers(position[0]), edge_F1),
            "neighbours": _related(self._neighbours, first, after),
            "coactive": _related(self._coactive, first, after),
            "populations": _populations(answered, here),
        }

    def _tokens(self, logits: Lists, first: int, after: int) -> pa.StringArray:
        edge_F1, (token_N, _) = logits.of(first, after, RELATED)
        return lists(self._words.quoted.take(pa.array(self._words.place_V[token_N])), edge_F1)

    def _values(self, logits: Lists, first: int, after: int) -> pa.StringArray:
        edge_F1, (_, value_N) = logits.of(first, after, RELATED)
        return lists(numbers(value_N), edge_F1)


def _lists(answers: Answers | None, table: str, *columns: str) -> Lists:
    return Lists(None if answers is None else getattr(answers, table), *columns)


def _related(related: Lists, first: int, after: int) -> pa.StringArray:
    """Return the first features of a relation, each with its numbers."""
    edge_F1, columns = related.of(first, after, RELATED)
    return lists(tuples(*(numbers(one) if one.dtype.kind == "f" else integers(one) for one in columns)), edge_F1)


def _label(answered: Answered, here: slice) -> Fields:
    """Return label, kind and purity; nothing where there are no answers."""
    if answered.answers is None:
        return {}
    labels = answered.answers.labels[here]
    return {
        "label": texts(labels["label"]),
        "kind": texts(labels["kind"]),
        "purity": numbers(labels["purity"].to_numpy()),
    }


def _populations(answered: Answered, here: slice) -> str | pa.StringArray:
    """Return of each population its name, rows, active rows of the feature, and its mean activation over these."""
    each = [
        tuples(compact(one.name), str(one.rows), integers(one.count_F[here]), numbers(one.mean_active_F[here]))
        for one in answered.populations
    ]
    return tuples(*each) if each else "[]"


def _where(
    active_F: npt.NDArray[np.bool_], value_FN: npt.NDArray[Any], as_json: Callable[[npt.NDArray[Any]], pa.StringArray]
) -> pa.StringArray:
    """Return the rows of `value_FN` as lists; empty ones for features that are never active."""
    edge_F1 = np.concatenate([[0], np.cumsum(active_F * value_FN.shape[1])])
    return lists(as_json(value_FN[active_F].ravel()), edge_F1)


def _without_ends(count_FB: npt.NDArray[np.int64]) -> pa.StringArray:
    """Return histograms as they are, without the empty bins at both ends: the first bin, and the counts from there."""
    there_FB = count_FB > 0
    first_F = there_FB.argmax(1)
    last_F = np.where(there_FB.any(1), BINS - 1 - there_FB[:, ::-1].argmax(1), -1)
    bin_B = np.arange(BINS)
    within_FB = (bin_B >= first_F[:, None]) & (bin_B <= last_F[:, None])
    edge_F1 = np.concatenate([[0], np.cumsum(within_FB.sum(1))])
    return records({"first": integers(first_F), "counts": lists(integers(count_FB[within_FB]), edge_F1)})


def token_ids(answered: Answered, stored: Stored) -> Iterator[npt.NDArray[Any]]:
    """Yield every token id that records show, with repetitions."""
    for table in (stored.examples, stored.samples):
        yield table["token"].to_numpy()
        yield from (pc.list_flatten(table[name]).to_numpy() for name in ("before", "after"))
    if answered.answers is not None:
        yield from Lists(answered.answers.logits, "high_tokens", "low_tokens").every()
