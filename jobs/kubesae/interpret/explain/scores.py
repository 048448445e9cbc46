"""How well an explanation tells where a feature is active: balanced accuracy over examples of both kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Score:
    """What was answered.

    Attributes:
        value: the mean of the shares of both kinds that were judged rightly: 0.5 by chance, 1 at best. None where no
            example of one kind was judged.
        positives: judged examples on which the feature is active.
        negatives: judged examples on which it is not.
        unanswered: examples that the model gave no readable answer for.

    """

    value: float | None
    positives: int
    negatives: int
    unanswered: int

    @classmethod
    def of(cls, judged: Iterable[tuple[bool, bool | None]]) -> Score:
        """Return the score of examples: whether the feature is active, and what was answered (None: nothing)."""
        right, all_of, unanswered = [0, 0], [0, 0], 0
        for truth, answer in judged:
            if answer is None:
                unanswered += 1
            else:
                all_of[truth] += 1
                right[truth] += answer == truth
        negatives, positives = all_of
        value = (right[0] / negatives + right[1] / positives) / 2 if negatives and positives else None
        return cls(value, positives, negatives, unanswered)
