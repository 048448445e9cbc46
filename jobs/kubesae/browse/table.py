"""What is known of every feature, by column: the page's table, its search, and its comparison of populations.

Numbers have three significant digits: they are read, sorted and drawn, and none is computed with any further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.browse.columns import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from kubesae.browse.answered import Answered
    from kubesae.browse.contexts import Words
    from kubesae.features import Stored


def table_columns(stored: Stored, answered: Answered, common: Sequence[Sequence[int]], words: Words) -> dict[str, Any]:
    """Return the columns; each has a value a feature.

    Args:
        stored: gives the statistics.
        answered: gives labels, flags and populations; without answers there are neither labels nor populations.
        common: tokens on which each feature is most active (`answered.common_tokens`).
        words: their texts.

    """
    statistics = stored.statistics
    return {
        "features": None,  # all of them; a file of a few has their numbers here
        "rows": stored.info.rows,
        "count": statistics["count"].to_pylist(),
        "max": _rounded(statistics["max"].to_numpy()),
        "mean": _rounded(statistics["mean"].to_numpy()),
        "mean_active": _rounded(statistics["mean_active"].to_numpy()),
        "flags": answered.flags_F.tolist(),
        "tokens": [[words.text[token] for token in tokens] for tokens in common],
        **_labels(answered),
        "populations": [
            {
                "name": one.name,
                "rows": one.rows,
                "count": one.count_F.tolist(),
                "mean_active": _rounded(one.mean_active_F),
            }
            for one in answered.populations
        ],
    }


def _labels(answered: Answered) -> dict[str, Any]:
    if answered.answers is None:
        return {"label": None, "kind": None, "purity": None}
    labels = answered.answers.labels
    purity = _rounded(labels["purity"].to_numpy())
    return {"label": labels["label"].to_pylist(), "kind": labels["kind"].to_pylist(), "purity": purity}


def _rounded(values: npt.NDArray[Any]) -> list[float | None]:
    return [rounded(value) for value in values.tolist()]
