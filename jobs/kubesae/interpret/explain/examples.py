"""Which contexts a feature is explained from, and on which the explanation is judged: never the same ones.

It is explained from the rows of its largest activations and two of each decile, as they are stored, the largest first.
It is judged on other active rows, as many from each tenth of its activations as there are, found in the sparse-code
cache; and on as many pieces of text by chance in which it is active nowhere. Both come from hashes: the same each time.

E = examples, N = active rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from kubesae.corpus import read_token_range
from kubesae.interpret.explain.prompts import highlighted
from kubesae.interpret.kept import by_hash
from kubesae.ledger import Plan
from kubesae.parallel import READERS, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus import Vocabulary
    from kubesae.features import CodesFile
    from kubesae.interpret.run import Interpreter

SHOWN = 30
DECILES = 10
MARKED = 0.3
"""tokens are marked on which the feature is at least so active, relative to its most active token of the example"""
# Pieces of text that are looked at for one without the feature.
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Example:
    """A piece of text with the feature's activation on each token; `active`: whether there is any."""

    ids: tuple[int, ...]
    activations: tuple[float, ...]

    @property
    def active(self) -> bool:
        """Whether the feature is active in it."""
        return max(self.activations) > 0

    @property
    def marks(self) -> list[bool]:
        """The tokens to mark, none where it is not active."""
        least = MARKED * max(self.activations)
        return [value > 0 and value >= least for value in self.activations]

    def text(self, vocabulary: Vocabulary, marks: Sequence[bool] | None = None) -> str:
        """Return it on one line; with the marks where these are given."""
        return highlighted(vocabulary, self.ids, marks or [False] * len(self.ids))


@dataclass(frozen=True, slots=True)
class Examples:
    """Of one feature: `shown` for the explanation; `judged`, in a mixed order, half of them active."""

    shown: tuple[Example, ...]
    judged: tuple[Example, ...]


def examples_of(found: Interpreter, feature: int, most: int) -> Examples:
    """Choose the examples of a feature: at most SHOWN, and `most` active and `most` inactive ones to judge.

    Of a feature with few active rows half are kept for judging; where there are too few of one kind there are as few of
    the other. A feature that is never active has none.
    """
    row_N, value_N = found.stored.cache(found.output).of(feature)
    shown = _shown(found, feature, limit=min(SHOWN, (len(row_N) + 1) // 2))
    rest = ~np.isin(row_N, [row["row"] for row in shown])
    chosen_E = _by_decile(row_N[rest], value_N[rest], most)
    drawn_E = _drawn(found.stored.info.codes, _TRIES * most, feature)
    active, others = (_contexts(found, row_E, row_N, value_N) for row_E in (chosen_E, drawn_E))
    inactive = [one for one in others if not one.active]
    order = np.random.Generator(np.random.PCG64([feature, 2]))
    inactive = [inactive[i] for i in order.permutation(len(inactive))[:most]]
    few = min(len(active), len(inactive))
    judged = [active[i] for i in order.permutation(len(active))[:few]] + inactive[:few]
    return Examples(tuple(map(_example, shown)), tuple(judged[i] for i in order.permutation(len(judged))))


def _drawn(files: Sequence[CodesFile], count: int, feature: int) -> npt.NDArray[np.int64]:
    """Return `count` random rows, or some fewer, of those that were encoded; their numbers ascend."""
    end = np.cumsum([file.rows for file in files])
    number = np.random.Generator(np.random.PCG64([feature, 1])).integers(0, end[-1], count)
    at = np.searchsorted(end, number, side="right")
    after = np.array([file.first_row + file.rows for file in files])
    return np.unique(number - end[at] + after[at])


def _shown(found: Interpreter, feature: int, limit: int) -> list[dict[str, Any]]:
    """Rows of the largest activations, then some of each decile, no row twice."""
    rows: dict[int, dict[str, Any]] = {}
    for table in (found.stored.examples, found.stored.samples):
        first, last = np.searchsorted(table["feature"].to_numpy(), [feature, feature + 1])
        own = table.slice(first, last - first)
        if "decile" in own.schema.names:
            own = own.filter(pc.equal(own["kind"], "decile"))
            every = own.to_pylist()
        else:
            every = own.to_pylist()[: max(1, limit // 2)]
        rows |= {row["row"]: row for row in every if row["row"] not in rows}
    kept = sorted(rows.values(), key=lambda row: (-row["activation"], row["row"]))
    # where there are too many, evenly from the largest to the smallest
    return (
        [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(limit, len(kept))).astype(int))] if kept else []
    )


def _by_decile(row_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` rows, evenly from each tenth of the activations, by hash."""
    order = np.lexsort((row_N, value_N))
    parts = [part[np.argsort(by_hash(row_N[part]))] for part in np.array_split(order, DECILES)]
    turns = max((len(part) for part in parts), default=0)
    taken = [part[turn] for turn in range(turns) for part in parts if turn < len(part)][:most]
    return np.sort(row_N[np.array(taken, np.int64)])


def _contexts(
    found: Interpreter, row_E: npt.NDArray[np.int64], row_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float32]
) -> list[Example]:
    """Return the contexts of rows, with the activations of the feature that is active on rows `row_N`, which ascend.

    Each is read by itself: all tokens would be gigabytes a feature.
    """
    plan, width = Plan.of(found.identity), found.stored.info.source.context_tokens

    def read(row: int) -> Example:
        shard, place = plan.locate(row)
        first = place - place % plan.context
        begin = max(place - width, first)
        end = min(place + 1 + width, first + plan.context, plan.quota(shard))
        ids = read_token_range(found.data, shard, begin, end)
        row_T = row - place + np.arange(begin, end)
        first_N, after_N = np.searchsorted(row_N, [row_T[0], row_T[-1] + 1])
        value_T = np.zeros(end - begin, np.float32)
        value_T[row_N[first_N:after_N] - row_T[0]] = value_N[first_N:after_N]
        return Example(tuple(ids.tolist()), tuple(value_T.tolist()))

    return list(in_order(read, row_E.tolist(), READERS))


def _example(row: dict[str, Any]) -> Example:
    return Example((*row["before"], row["token"], *row["after"]), tuple(row["activations"]))
