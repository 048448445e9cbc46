"""What the page shows of one feature, as JSON: the fields of circuit-tracer's viewer, and more beside them.

Theirs: transcoder_id, index, examples_quantiles (quantile_name, examples), top_logits, bottom_logits, act_min, act_max,
quantile_values (percentiles), histogram (bins of equal width), activation_frequency. docs/page.md lists ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.browse.answered import Lists
from kubesae.browse.contexts import rounded
from kubesae.browse.distribution import equal_bins, log_bins, percentiles
from kubesae.browse.packing import compact

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from kubesae.browse.answered import Answered
    from kubesae.browse.contexts import Contexts, Words
    from kubesae.features import Answers, Stored

# Rows shown of each group; what is stored may be more. With 33 tokens each, they are most of a feature's bytes.
TOP, PER_DECILE, RANDOM = 20, 2, 10
RELATED = 10
DECILES = 10
_NUMBERS = ("count", "max", "mean", "mean_active", "std_active", "frequency")


class Records:
    """Makes the JSON of any feature.

    record = Records(stored, answered, examples, samples, words)
    record(12845)
    """

    def __init__(self, stored: Stored, answered: Answered, examples: Contexts, samples: Contexts, words: Words) -> None:
        """Read the columns of all features once."""
        self._sae, self._answered, self._words = stored.info.source.sae, answered, words
        self._examples, self._samples = examples, samples
        random_E = stored.samples["kind"].to_numpy(zero_copy_only=False) == "random"
        self._decile_E = np.where(random_E, -1, stored.samples["decile"].to_numpy())
        self._numbers = {name: stored.statistics[name].to_numpy() for name in _NUMBERS}
        self._histogram = Lists(stored.statistics, "histogram")
        counted = "positions" in stored.statistics.column_names  # which the first ones of this format did not count
        self._positions = Lists(stored.statistics, "positions") if counted else None
        answers = answered.answers
        self._high = _lists(answers, "logits", "high_tokens", "high_values")
        self._low = _lists(answers, "logits", "low_tokens", "low_values")
        self._neighbours = _lists(answers, "neighbours", "neighbours", "cosines")
        self._coactive = _lists(answers, "coactivation", "others", "jaccard", "npmi", "counts")

    def __call__(self, feature: int) -> bytes:
        """Return a feature's JSON."""
        fields = compact(self._circuit_tracer(feature) | self._further(feature))
        return f'{fields[:-1]},"examples_quantiles":[{",".join(self._groups(feature))}]}}'.encode()

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

    def _groups(self, feature: int) -> Iterator[str]:
        """Yield the groups of rows: the largest activations, each decile from the largest on, random ones.

        A row that shows the same tokens as one before it in its group counts as repeated: copied text.
        """
        first, last = self._samples.offset_F[feature : feature + 2].tolist()
        decile_N = self._decile_E[first:last]
        top = range(*self._examples.offset_F[feature : feature + 2].tolist())
        yield self._group("Top activations", self._examples, top[:TOP])
        for decile in reversed(range(DECILES)):
            rows = first + np.flatnonzero(decile_N == decile)
            yield self._group(f"Decile {decile + 1}", self._samples, rows[:PER_DECILE].tolist())
        rows = first + np.flatnonzero(decile_N == -1)
        yield self._group("Random", self._samples, rows[:RANDOM].tolist())

    def _group(self, name: str, contexts: Contexts, rows: range | list[int]) -> str:
        examples: list[str] = []
        shown: set[bytes] = set()
        for row in rows:
            key = contexts.key(row)
            examples.append(contexts.to_json(row, self._words, repeated=key in shown))
            shown.add(key)
        return f'{{"quantile_name":"{name}","examples":[{",".join(examples)}]}}'


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


def token_ids(answered: Answered, *contexts: Contexts) -> Any:
    """Return every token id that records show, with repetitions."""
    found = [one.token_T for one in contexts]
    if answered.answers is not None:
        logits: pa.Table = answered.answers.logits
        found += [Lists(logits, name).every()[0].astype(np.int64) for name in ("high_tokens", "low_tokens")]
    return np.concatenate(found)
