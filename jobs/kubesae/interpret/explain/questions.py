"""The questions about one feature, made of its examples: the same ones each time, with the answers that are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kubesae.interpret.explain.prompts import detection_prompt, explanation_prompt, fuzzing_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus import Vocabulary
    from kubesae.interpret.explain.examples import Example, Examples

BATCH = 5
"""texts of a question: more of them help to guess, and fewer answers keep to the form"""
KINDS = {"detection": detection_prompt, "fuzzing": fuzzing_prompt}


@dataclass(frozen=True, slots=True)
class Question:
    """One question that judges an explanation: its kind, the texts, and for each whether the right answer is yes."""

    kind: str
    texts: tuple[str, ...]
    truth: tuple[bool, ...]

    def messages(self, explanation: str) -> list[dict[str, str]]:
        """Return what is asked, given an explanation."""
        return KINDS[self.kind](explanation, self.texts)


def first_question(examples: Examples, vocabulary: Vocabulary) -> list[dict[str, str]]:
    """Return the messages that ask for the explanation."""
    return explanation_prompt([example.text(vocabulary, example.marks) for example in examples.shown])


def questions_of(feature: int, examples: Examples, vocabulary: Vocabulary) -> list[Question]:
    """Return the questions that judge an explanation, both kinds about all examples to judge."""
    marks = _marks(feature, examples.judged)
    found = []
    for kind in KINDS:
        for start in range(0, len(examples.judged), BATCH):
            batch = examples.judged[start : start + BATCH]
            shown = marks[start : start + BATCH] if kind == "fuzzing" else [None] * len(batch)
            texts = tuple(one.text(vocabulary, own) for one, own in zip(batch, shown, strict=True))
            found.append(Question(kind, texts, tuple(example.active for example in batch)))
    return found


def _marks(feature: int, examples: Sequence[Example]) -> list[list[bool]]:
    """Return the tokens to mark: those that are active, and where none is as many by chance as an active one has."""
    generator = np.random.Generator(np.random.PCG64([feature, 3]))
    counts = [sum(example.marks) for example in examples if example.active]
    marks = []
    for example in examples:
        own = example.marks
        if not example.active:
            count = min(counts[generator.integers(len(counts))], len(own))
            own = np.isin(np.arange(len(own)), generator.permutation(len(own))[:count]).tolist()
        marks.append(own)
    return marks
