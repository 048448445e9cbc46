"""Tokens as a person reads them: one line, the token in question marked, nothing that a terminal would act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus import Vocabulary

_SHOWN = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def visible(text: str) -> str:
    """Return `text` on one line: line ends and tabs as ⏎ ␍ ⇥, other characters that do not print as escapes.

    Corpora hold terminal escapes and characters that reverse the direction of writing; neither gets through.
    """
    return "".join(c if c.isprintable() else _SHOWN.get(c) or c.encode("unicode_escape").decode() for c in text)


def split_text(vocabulary: Vocabulary, before: Sequence[int], token: int, after: Sequence[int]) -> tuple[str, str, str]:
    """Return the text before a token, of it, and after it.

    Each is what the tokens add to the text so far, because some tokenizers drop a space at the beginning of what they
    decode. Where a token is only a part of a character the three are decoded each for itself.
    """
    first = vocabulary.text(before)
    middle = _added(vocabulary, before, [token], first)
    last = _added(vocabulary, [*before, token], after, first + middle)
    return first, middle, last


def marked(vocabulary: Vocabulary, before: Sequence[int], token: int, after: Sequence[int]) -> str:
    """Return a context on one line with its token marked: `import »os«⏎`."""
    first, middle, last = map(visible, split_text(vocabulary, before, token, after))
    return f"{first}»{middle}«{last}"


def _added(vocabulary: Vocabulary, before: Sequence[int], ids: Sequence[int], so_far: str) -> str:
    """Text that `ids` add to `so_far`, the text of `before`."""
    together = vocabulary.text([*before, *ids])
    return together[len(so_far) :] if together.startswith(so_far) else vocabulary.text(ids)
