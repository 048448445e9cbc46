"""What the page shows of one feature, as JSON: the fields of circuit-tracer's viewer, and more beside them.

Theirs: transcoder_id, index, examples_quantiles (quantile_name, examples), top_logits, bottom_logits, act_min, act_max,
quantile_values (percentiles), histogram (bins of equal width), activation_frequency. docs/page.md lists ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from kubesae.browse.answered import Lists
from kubesae.browse.contexts import Groups, rounded
from kubesae.browse.distribution import equal_bins, log_bins, percentiles
from kubesae.browse.packing import compact

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from kubesae.browse.answered import Answered
    from kubesae.browse.contexts import Words
    from kubesae.features import Answers, Stored

# Rows shown of each group; what is stored may be more. With 33 tokens each, they are most of a feature's bytes.
TOP, PER_DECILE, RANDOM = 20, 2, 10
RELATED = 10
DECILES = 10
_NUMBERS = ("count", "max", "mean", "mean_active", "std_active", "frequency")


class Records:
    """Makes the JSON of any features, quickest of many at a time.

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
        self._positions = Lists(stored.statistics, "positions") if counted else None
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
        fields = [compact(self._circuit_tracer(one) | self._further(one)) for one in range(first, after)]
        return [
            f'{own[:-1]},"examples_quantiles":[{largest},{others}]}}'.encode()
            for own, largest, others in zip(fields, top, sampled, strict=True)
        ]

    def _circuit_tracer(self, feature: int) -> dict[str, Any]:
        """Return the fields of circuit-tracer's viewer, but for the examples."""
        most = float(self._numbers["max"][feature])
        count_B = np.asarray(self._histogram.of(feature)[0], np.int64)
        return {
            "transcoder_id": self._sae,
            "index": feature,
            "top_logits": self._texts(self._high, feature),
            "bottom_logits": self._texts(self._low, feature),
            "act_min": 0,
            "act_max": rounded(most),
            "quantile_values": [rounded(value) for value in percentiles(count_B, most)],
            "histogram": equal_bins(count_B, most),
            "activation_frequency": rounded(float(self._numbers["frequency"][feature])),
            "log_histogram": log_bins(count_B),
        }

    def _further(self, feature: int) -> dict[str, Any]:
        """Return what only our page shows."""
        return {
            "count": int(self._numbers["count"][feature]),
            **{name: rounded(float(self._numbers[name][feature])) for name in ("mean", "mean_active", "std_active")},
            **self._answered.label(feature),
            "flags": int(self._answered.flags_F[feature]),
            "top_values": self._values(self._high, feature),
            "bottom_values": self._values(self._low, feature),
            "positions": self._positions.of(feature)[0] if self._positions else [],
            "neighbours": _related(self._neighbours, feature),
            "coactive": _related(self._coactive, feature),
            "populations": self._answered.in_populations(feature),
        }

    def _texts(self, logits: Lists | None, feature: int) -> list[str]:
        return [self._words.text[token] for token in logits.of(feature)[0][:RELATED]] if logits else []

    def _values(self, logits: Lists | None, feature: int) -> list[float | None]:
        return [rounded(value) for value in logits.of(feature)[1][:RELATED]] if logits else []


def _lists(answers: Answers | None, table: str, *columns: str) -> Lists | None:
    return None if answers is None else Lists(getattr(answers, table), *columns)


def _related(lists: Lists | None, feature: int) -> list[list[Any]]:
    """Return the first features of a relation, each with its numbers."""
    if lists is None:
        return []
    rows = zip(*(values[:RELATED] for values in lists.of(feature)), strict=True)
    return [
        [other, *(rounded(value) if isinstance(value, float) else value for value in rest)] for other, *rest in rows
    ]


def token_ids(answered: Answered, stored: Stored) -> Iterator[npt.NDArray[Any]]:
    """Yield every token id that records show, with repetitions."""
    for table in (stored.examples, stored.samples):
        yield table["token"].to_numpy()
        yield from (pc.list_flatten(table[name]).to_numpy() for name in ("before", "after"))
    if answered.answers is not None:
        yield from Lists(answered.answers.logits, "high_tokens", "low_tokens").every()
