"""The rows that the page shows of each feature, as JSON: tokens of a context, with the activation on each.

They are made for many features at a time. Token text is turned into JSON once for each token of the vocabulary that
occurs.
Legend: F features, C cells (a group of rows of a feature), E shown rows, T tokens of all of them, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kubesae.browse.columns import integers, joined, lists, mostly_zero, records, texts
from kubesae.browse.packing import compact
from kubesae.features.contexts import Contexts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.corpus import Vocabulary


@dataclass(frozen=True, slots=True)
class Words:
    """Texts of tokens. `pieces` says how a token reads by itself.

    Attributes:
        text: of every token that was looked up.
        quoted: the same as JSON, in the order of ids.
        place_V: where in `quoted` each id is.

    """

    text: dict[int, str]
    quoted: pa.StringArray
    place_V: npt.NDArray[np.int32]

    @classmethod
    def of(cls, vocabulary: Vocabulary, parts: Iterable[npt.NDArray[Any]]) -> Words:
        """Look up every token of `parts`, which may come several times; -1 is none."""
        found = [np.flatnonzero(np.bincount(ids[ids >= 0])) for ids in parts]
        known = np.unique(np.concatenate([np.zeros(0, np.int64), *found]))
        text = dict(zip(known.tolist(), vocabulary.pieces(known.tolist()), strict=True))
        place_V = np.zeros(int(known.max(initial=-1)) + 1, np.int32)
        place_V[known] = np.arange(len(known))
        return cls(text, pa.array([compact(one) for one in text.values()], pa.string()), place_V)


_COLUMNS = ["row", "corpus", "document", "offset", "token", "before", "after", "activations"]


class Groups:
    """Rows of a table that are shown, in the same groups of every feature.

    groups = Groups(stored.examples, group_E, {"Top activations": 20})
    groups.to_json(0, 64, words)            # of each of these features its groups
    """

    def __init__(self, table: pa.Table, group_E: npt.NDArray[np.int64], most: dict[str, int]) -> None:
        """Choose rows.

        Args:
            table: of examples or samples (`kubesae.features.stored`).
            group_E: number of its group, in the order of `most`.
            most: rows that are shown of each group, the first ones of the table, by its name.

        """
        self._table = table.select(_COLUMNS).combine_chunks()
        self._names = list(most)
        cell_E = table["feature"].to_numpy().astype(np.int64) * len(most) + group_E
        order_E = np.argsort(cell_E, kind="stable")
        cell_E, group_E = cell_E[order_E], group_E[order_E]
        rank_E = np.arange(len(cell_E)) - np.searchsorted(cell_E, cell_E)
        shown = rank_E < np.array(list(most.values()))[group_E]
        self._cell_E, self._row_E = cell_E[shown], order_E[shown]

    def to_json(self, first: int, after: int, words: Words) -> pa.StringArray:
        """Return the groups of features `first` to `after` - 1, one after the other, each in circuit-tracer's shape."""
        width = len(self._names)
        edge_C = np.searchsorted(self._cell_E, np.arange(first * width, after * width + 1))
        here = slice(edge_C[0], edge_C[-1])
        rows = _rows(self._table.take(pa.array(self._row_E[here])), self._cell_E[here], words)
        names = texts(pa.array(self._names * (after - first), pa.string()))
        groups = records({"quantile_name": names, "examples": lists(rows, edge_C - edge_C[0])})
        return joined(groups, np.arange(0, len(groups) + 1, width))


def _rows(table: pa.Table, cell_E: npt.NDArray[np.int64], words: Words) -> pa.StringArray:
    """Return rows in the shape of circuit-tracer's examples, and where each is from.

    One that shows the same tokens as one before it in its cell counts as repeated: copied text.
    """
    contexts = Contexts.of(table)
    tokens = joined(words.quoted.take(pa.array(words.place_V[contexts.token_T])), contexts.start_E)
    repeated_E = np.ones(len(table), np.bool_)
    text_E = tokens.dictionary_encode().indices.to_numpy()
    repeated_E[np.unique(cell_E * len(table) + text_E, return_index=True)[1]] = False
    return records(
        {
            "tokens_acts_list": lists(mostly_zero(contexts.value_T), contexts.start_E),
            "train_token_ind": integers(contexts.at_E),
            "is_repeated_datapoint": integers(repeated_E),
            "tokens": pc.binary_join_element_wise("[", tokens, "]", ""),
            "row": _column(table, "row").cast(pa.string()),
            "corpus": texts(_column(table, "corpus")),
            "document": texts(_column(table, "document")),
            "offset": _column(table, "offset").cast(pa.string()).fill_null("null"),
        }
    )


def _column(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks()
