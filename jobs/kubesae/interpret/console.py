"""What an interpretation says to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from kubesae.corpus import marked, split_text, visible
from kubesae.interpret.themes import DOCUMENTS, SHARE, TOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from kubesae.corpus import Vocabulary
    from kubesae.features import Interpretation
    from kubesae.interpret.themes import Theme

RANKED = 20


def statistics_lines(info: Interpretation, statistics: pa.Table) -> Iterator[str]:
    """Lines of `--statistics`: what was counted, then the features by largest activation and by frequency."""
    alive = pc.sum(pc.greater(statistics["count"], 0)).as_py()
    yield (
        f"{info.rows:,} rows of layer {info.source.layer} ({info.flagged_rows:,} flagged ones left out), "
        f"{alive:,} of {info.features:,} features active"
    )
    for column, title in (("max", "Max Activation"), ("frequency", "Frequency")):
        yield ""
        yield f"Top {RANKED} Features by {title}:"
        order = pc.sort_indices(statistics, [(column, "descending"), ("feature", "ascending")])
        for rank, row in enumerate(statistics.take(order[:RANKED]).to_pylist()):
            yield f"{rank + 1:2d}. {_feature(row)}"


def feature_lines(statistics: pa.Table, examples: pa.Table, feature: int, vocabulary: Vocabulary) -> Iterator[str]:
    """Lines of `--feature-id`: the feature, then each of its `examples`."""
    yield _feature(statistics.slice(feature, 1).to_pylist()[0])
    rows = examples.to_pylist()
    if not rows:
        yield "It is active on no row of this data."
    for row in rows:
        token = split_text(vocabulary, row["before"], row["token"], row["after"])[1]
        yield ""
        yield f"Rank {row['rank']}:"
        yield f"  Activation: {row['activation']:.4f}"
        yield f"  Token Index: {row['row']}"
        yield f"  Token ID: {row['token']}"
        yield f"  Token Text: '{visible(token)}'"
        yield f"  Context: {marked(vocabulary, row['before'], row['token'], row['after'])}"
        yield f"  Document: {_document(row)}"


def theme_lines(themes: Sequence[Theme], most: int) -> Iterator[str]:
    """Lines of `--themes`: the best `most` of `themes`."""
    yield (
        f"{len(themes)} different tokens and bigrams are shared by at least {SHARE:.0%} of the top {TOP} contexts of a "
        f"feature, in at least {DOCUMENTS} documents{':' if themes else '.'}"
    )
    for rank, theme in enumerate(themes[:most]):
        kind = "token" if len(theme.tokens) == 1 else "bigram"
        yield (
            f"{rank + 1:2d}. Feature {theme.feature}: {kind} '{visible(theme.text)}', "
            f"{theme.share:.0%} of {TOP} contexts, {theme.documents} documents"
        )
        yield f"      {theme.context}"


def _feature(row: dict[str, Any]) -> str:
    return f"Feature {row['feature']}: max={row['max']:.4f}, mean={row['mean']:.4f}, freq={row['frequency']:.4f}"


def _document(row: dict[str, Any]) -> str:
    if row["document"] is None:
        return "none"
    return f"{visible(row['document'])} ({row['corpus']}), token {row['offset']}"
