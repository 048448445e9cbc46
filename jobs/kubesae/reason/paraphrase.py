"""Paraphrase stability: does a feature stay active when the same problem is said otherwise?

Each problem, with its trace, is rewritten in three ways without a language model, always to the same text: other words,
other numbers, other order of sentences; and as the file's own paraphrases have it. Original and rewriting are both read
by one forward pass, the trace as text behind the prompt. A feature stays where its mean activation over the rewritten
trace is at least half of that over the original.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from kubesae.reason.problems import Problem, Prompts
    from kubesae.reason.reader import Found, Reader

STAYS = 0.5
"""of the mean activation over the original trace"""
_WORDS = {
    "how many": "what number of",
    "how much": "what amount of",
    "find": "determine",
    "calculate": "work out",
    "each": "every",
    "total": "overall sum",
    "altogether": "in all",
    "gives": "hands",
    "buys": "purchases",
    "bought": "purchased",
    "needs": "requires",
    "has": "owns",
    "so": "hence",
    "therefore": "thus",
    "because": "since",
    "then": "next",
    "first": "to begin with",
    "we": "one",
    "get": "obtain",
    "is equal to": "equals",
    "left": "remaining",
    "answer": "result",
}
_WORD = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)) + r")\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.,])\d{1,9}(?![\d.,]*\d)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SHIFT = 3


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A problem and its trace, said otherwise; `way` names how."""

    way: str
    problem: str
    trace: str


def rewritings(problem: Problem, trace: str) -> Iterator[Rewriting]:
    """Yield the rewritings of a problem that change it."""
    for way, text, told in (
        ("words", other_words(problem.text), other_words(trace)),
        ("numbers", *other_numbers(problem.text, trace)),
        ("order", other_order(problem.text), trace),
        *(("given", text, trace) for text in problem.paraphrases),
    ):
        if text != problem.text:
            yield Rewriting(way, text, told)


def other_words(text: str) -> str:
    """Return a text with words put for others of the same meaning; a capital stays one."""

    def put(found: re.Match[str]) -> str:
        word = _WORDS[found[0].lower()]
        return word.capitalize() if found[0][0].isupper() else word

    return _WORD.sub(put, text)


def other_numbers(problem: str, trace: str) -> tuple[str, str]:
    """Return both with every whole number of two digits or fewer that the problem names raised by three.

    What follows from the numbers in the trace is not worked out anew: it reads as reasoning, with sums that are wrong.
    """
    named = {found[0] for found in _NUMBER.finditer(problem) if int(found[0]) < 100}

    def put(found: re.Match[str]) -> str:
        return str(int(found[0]) + _SHIFT) if found[0] in named else found[0]

    return _NUMBER.sub(put, problem), _NUMBER.sub(put, trace)


def other_order(text: str) -> str:
    """Return a problem with its first two sentences exchanged, where it has three or more: the question stays last."""
    sentences = _SENTENCE.split(text)
    if len(sentences) < 3:
        return text
    return " ".join([sentences[1], sentences[0], *sentences[2:]])


@dataclass(frozen=True, slots=True)
class Stability:
    """Of one feature: pairs of an original, in which it is active, and a rewriting; and in how many of them it stays.

    `by_way`: the same for each way of rewriting.
    """

    pairs: int
    stayed: int
    by_way: Mapping[str, tuple[int, int]]

    @property
    def share(self) -> float | None:
        """Share of the pairs in which it stays; None without any."""
        return self.stayed / self.pairs if self.pairs else None


def run_paraphrases(
    reader: Reader, prompts: Prompts, told: Sequence[tuple[Problem, str]], features: Sequence[int]
) -> dict[int, Stability]:
    """Return the stability of features over problems, each with the text of its trace."""
    texts: list[npt.NDArray[np.uint32]] = []
    begins: list[int] = []
    pairs: list[tuple[int, int, str]] = []

    def add(problem: str, trace: str) -> int:
        prompt, ids = prompts.ids(problem, "a rewritten problem"), prompts.encode(trace)
        texts.append(np.concatenate([prompt, ids]))
        begins.append(len(prompt))
        return len(texts) - 1

    for problem, trace in told:
        original = add(problem.text, trace)
        pairs += [(original, add(one.problem, one.trace), one.way) for one in rewritings(problem, trace)]
    means = [_means(found, begin, features) for found, begin in zip(reader.read(texts), begins, strict=True)]
    result = {}
    for place, feature in enumerate(features):
        by_way: dict[str, tuple[int, int]] = {}
        for original, rewritten, way in pairs:
            if means[original][place] > 0:
                count, stayed = by_way.get(way, (0, 0))
                stays = means[rewritten][place] >= STAYS * means[original][place]
                by_way[way] = (count + 1, stayed + int(stays))
        pairs_of = sum(count for count, _ in by_way.values())
        result[feature] = Stability(pairs_of, sum(stayed for _, stayed in by_way.values()), by_way)
    return result


def _means(found: Found, begin: int, features: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the mean activation of features over the unflagged tokens from `begin` on."""
    kept = (found.token_N >= begin) & found.unflagged()
    tokens = max(int((found.flags_T[begin:] == 0).sum()), 1)
    where = {feature: place for place, feature in enumerate(features)}
    sums = np.zeros(len(features))
    for feature, value in zip(found.feature_N[kept].tolist(), found.value_N[kept].tolist(), strict=True):
        if feature in where:
            sums[where[feature]] += value
    return sums / tokens
