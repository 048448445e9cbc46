"""Themes: features whose largest activations share a token, found by counting, without a language model.

A feature has a theme when, of its TOP largest activations,

- at least SHARE are on the same token, or, where that token is only white space or punctuation, on the same bigram:
  that token with the one before it or after it. Tokens are compared by id, special tokens make no bigram;
- the theme has a letter or digit;
- those that share it come from at least DOCUMENTS documents. Of rows with the same tokens before them (copied text:
  licence headers, generated tables) only the one of the highest rank counts as a document.

Of the features with the same theme, compared without case, spaces and punctuation, the best is kept: the largest share,
then the most documents, then the lowest number.

E = examples of one feature.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.corpus import marked

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from kubesae.corpus import Vocabulary

TOP = 20
SHARE = 0.8
DOCUMENTS = 10


@dataclass(frozen=True, slots=True)
class Theme:
    """A feature's theme.

    Attributes:
        feature: number of the feature.
        text: text of the token or bigram.
        tokens: its one or two token ids.
        share: share of the feature's TOP largest activations that are on it.
        documents: different documents among these.
        context: the one of highest rank, on one line with the token marked.

    """

    feature: int
    text: str
    tokens: tuple[int, ...]
    share: float
    documents: int
    context: str


def find_themes(examples: pa.Table, vocabulary: Vocabulary, special: tuple[int, ...]) -> list[Theme]:
    """Return one feature for each theme, the best first.

    Args:
        examples: from an interpretation that kept at least TOP rows a feature, by feature and rank.
        vocabulary: turns token ids into text.
        special: special token ids.

    """
    found: dict[str, Theme] = {}
    for feature, rows in _features(examples):
        theme = _theme(feature, rows, vocabulary, frozenset(special))
        if theme is not None:
            key = _letters(theme.text)
            found[key] = min(found.get(key, theme), theme, key=_order)
    return sorted(found.values(), key=_order)


def _order(theme: Theme) -> tuple[float, int, int]:
    return -theme.share, -theme.documents, theme.feature


def _letters(text: str) -> str:
    """Letters and digits of `text`, without case."""
    return "".join(c for c in text.casefold() if c.isalnum())


def _features(examples: pa.Table) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The TOP examples of each feature that has as many; few features at a time become Python objects."""
    feature_E = examples["feature"].to_numpy()
    first_E = np.flatnonzero(np.diff(feature_E, prepend=-1))
    last_E = np.append(first_E[1:], len(feature_E))
    for first in first_E[last_E - first_E >= TOP].tolist():
        yield int(feature_E[first]), examples.slice(first, TOP).to_pylist()


def _theme(feature: int, rows: list[dict[str, Any]], vocabulary: Vocabulary, special: frozenset[int]) -> Theme | None:
    candidates: list[list[tuple[int, ...]]] = [
        [(row["token"],) for row in rows],
        [(*row["before"][-1:], row["token"]) for row in rows],
        [(row["token"], *row["after"][:1]) for row in rows],
    ]
    for tokens_E in candidates:
        tokens, count = Counter(tokens_E).most_common(1)[0]
        if count < SHARE * len(rows):
            continue
        text = vocabulary.text(tokens)
        if not _letters(text) or special & set(tokens):
            continue
        sharing = [row for row, own in zip(rows, tokens_E, strict=True) if own == tokens]
        documents = _documents(sharing)
        if documents >= DOCUMENTS:
            best = sharing[0]
            context = marked(vocabulary, best["before"], best["token"], best["after"])
            return Theme(feature, text, tokens, count / len(rows), documents, context)
    return None


def _documents(rows: list[dict[str, Any]]) -> int:
    """Different documents of `rows`, of those with the same tokens before them only the first."""
    first = {tuple(row["before"]): (row["corpus"], row["document"]) for row in reversed(rows)}
    return len(set(first.values()))
