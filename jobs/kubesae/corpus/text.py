"""Tokens as a person reads them: one line, the token in question marked, nothing that a terminal would act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus.tokenizer import Vocabulary

_SHOWN = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def visible(text: str) -> str:
    """Return `text` on one line: line ends and tabs as ⏎ ␍ ⇥, other characters that do not print as escapes.

    Corpora hold terminal escapes and characters that reverse the direction of writing; neither gets through.
    """
    return "".join(c if c.isprintable() else _SHOWN.get(c) or c.encode("unicode_escape").decode() for c in text)


def split_text(vocabulary: Vocabulary, before: Sequence[int], token: int, after: Sequence[int]) -> tuple[str, str, str]:
    """Return the text before a token, of it, and after it; the three together are the text of all.

    A part is what its tokens add to the text so far, because some tokenizers drop a space at the beginning of what they
    decode. Where the token is only a piece of a character, the middle is the whole character.
    """
    ids = [*before, token, *after]
    whole, at = vocabulary.text(ids), len(before)
    start, stop = at, at + 1
    while not whole.startswith(first := vocabulary.text(ids[:start])):  # it ends within a character: not before it
        start -= 1
    while not whole.startswith(upto := vocabulary.text(ids[:stop])):
        stop += 1
    return first, upto[len(first) :], whole[len(upto) :]


def marked(vocabulary: Vocabulary, before: Sequence[int], token: int, after: Sequence[int]) -> str:
    """Return a context on one line with its token marked: `import »os«⏎`."""
    first, middle, last = map(visible, split_text(vocabulary, before, token, after))
    return f"{first}»{middle}«{last}"
