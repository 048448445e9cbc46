"""What a language model is asked about a feature, and how its answers are read.

- explanation: what do the marked tokens of these examples have in common?
- detection: on which of these examples is the feature active, by that explanation? Nothing is marked.
- fuzzing: in which of these are the marked tokens those that it is active on? In the others they are marked by chance.

Detection and fuzzing as delphi defines them (arXiv 2410.13928, section 3), a few examples a question.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from kubesae.corpus import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus import Vocabulary

VERSION = 1
"""of the questions' text: explanations by other ones are made again"""
BEGIN, END = "<<", ">>"
EXPLANATION = "{explanation}"
"""stands for the explanation in prompts that are exported before there is one"""
EXPLANATION_TOKENS, SCORE_TOKENS = 300, 100
_LONGEST = 500

_EXPLAIN = (
    "You study a language model. One of its features is active on some tokens of a text and inactive on all others. "
    f"You are shown pieces of text in which the tokens that it is active on are marked {BEGIN}like this{END}, from "
    "those on which it is most active to those on which it is least. Say in one short sentence what the marked tokens, "
    "or what stands before them, have in common. Do not list the examples. End with one line that begins with "
    "'Explanation:'."
)
_DETECT = (
    "A feature of a language model is active on texts of a certain kind. You are given an explanation of it, and "
    "numbered texts. Decide for each text whether the feature is active somewhere in it. Answer with nothing but a "
    "list of 1 (active) or 0 (not active), one for each text in their order, like [1, 0, 0]."
)
_FUZZ = (
    "A feature of a language model is active on certain tokens. You are given an explanation of it, and numbered texts "
    f"with some tokens marked {BEGIN}like this{END}. Decide for each text whether the marked tokens are those that the "
    "feature is active on. Answer with nothing but a list of 1 (they are) or 0 (they are not), one for each text in "
    "their order, like [1, 0, 0]."
)


def explanation_prompt(texts: Sequence[str]) -> list[dict[str, str]]:
    """Return the messages that ask for an explanation of marked texts."""
    return _messages(_EXPLAIN, _numbered(texts))


def detection_prompt(explanation: str, texts: Sequence[str]) -> list[dict[str, str]]:
    """Return the messages that ask which texts a feature is active on."""
    return _messages(_DETECT, f"Explanation: {explanation}\n\n{_numbered(texts)}")


def fuzzing_prompt(explanation: str, texts: Sequence[str]) -> list[dict[str, str]]:
    """Return the messages that ask in which texts the right tokens are marked."""
    return _messages(_FUZZ, f"Explanation: {explanation}\n\n{_numbered(texts)}")


def read_explanation(answer: str) -> str:
    """Return the explanation in an answer: what follows the last 'Explanation:', else all of it; on one line."""
    found = answer.rpartition("Explanation:")[2]
    return visible(" ".join(found.split()))[:_LONGEST]


def read_list(answer: str, count: int) -> list[bool] | None:
    """Return the first list of `count` zeros and ones in an answer; None where there is none."""
    for found in re.findall(r"\[([01\s,]*)\]", answer):
        values = re.findall(r"[01]", found)
        if len(values) == count:
            return [value == "1" for value in values]
    return None


def highlighted(vocabulary: Vocabulary, ids: Sequence[int], marked: Sequence[bool]) -> str:
    """Return the text of tokens on one line with runs of marked ones between BEGIN and END."""
    whole, text, done = vocabulary.text(ids), "", 0
    edges = [0, *(i for i in range(1, len(ids)) if marked[i] != marked[i - 1]), len(ids)]
    for start, stop in pairwise(edges):
        upto = stop
        while upto and not whole.startswith(vocabulary.text(ids[:upto])):  # it ends within a character
            upto -= 1
        end = len(whole) if stop == len(ids) else max(done, len(vocabulary.text(ids[:upto])))
        piece = visible(whole[done:end])
        text += f"{BEGIN}{piece}{END}" if marked[start] and piece else piece
        done = end
    return text


def _messages(system: str, user: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def _numbered(texts: Sequence[str]) -> str:
    return "\n".join(f"Text {number}: {text}" for number, text in enumerate(texts, 1))
