"""Exact sums of features: each number is cut into words of fixed point, and every word is summed as an integer.

Sums of floats depend on their order; these do not, so any number of workers give the bits of one. A number is its whole
part, then 26 bits, then 26 bits more: of a float32 from 2^-29 on, and of the square of one from 2^-3 on, nothing is
lost; smaller ones are rounded by at most 2^-53 (1.1e-16) each.

F = features, W = the three words, N = entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kubesae.errors import KubesaeError

WORD_BITS = 26
WORDS = 3
# Sums of one `add` are made in float64, in which integers are exact up to here.
_EXACT = 2.0**53


@dataclass
class ExactSums:
    """The sum of each of F features.

    Attributes:
        words_WF: int64 [W, F], sums of the whole parts, of the 26 bits after the point, and of the next 26. Holds
            1e9 numbers below 9e9 (activations below 9e9, squares of ones below 9e4); 24 bytes a feature.

    """

    words_WF: npt.NDArray[np.int64]

    @classmethod
    def zero(cls, features: int) -> ExactSums:
        """Sums of nothing."""
        return cls(np.zeros((WORDS, features), np.int64))

    def add(self, feature_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float64]) -> None:
        """Add non-negative numbers of at most 53 bits, fewer than 2^27 of each feature.

        Raises:
            KubesaeError: they, or all so far, are too large for an exact sum.

        """
        features = self.words_WF.shape[1]
        rest_N = value_N
        for word in range(WORDS):
            whole_N = np.floor(rest_N) if word < WORDS - 1 else np.rint(rest_N)
            sums_F = np.bincount(feature_N, weights=whole_N, minlength=features)
            if sums_F.max(initial=0) >= _EXACT:
                raise _too_large(int(np.argmax(sums_F)))
            self.words_WF[word] += sums_F.astype(np.int64)
            rest_N = (rest_N - whole_N) * (1 << WORD_BITS)
        self._check()

    def merge(self, other: ExactSums) -> None:
        """Add the sums of other numbers. Raises KubesaeError as `add`."""
        self.words_WF += other.words_WF
        self._check()

    def _check(self) -> None:
        """Two sums below 2^63 overflow to a negative one."""
        if self.words_WF.min(initial=0) < 0:
            raise _too_large(int(np.argmin(self.words_WF.min(0))))

    @property
    def total_F(self) -> npt.NDArray[np.float64]:
        """The sums, each rounded to float64."""
        whole, high, low = self.words_WF
        total: npt.NDArray[np.float64] = whole + (high + low / (1 << WORD_BITS)) / (1 << WORD_BITS)
        return total


def _too_large(feature: int) -> KubesaeError:
    return KubesaeError(
        f"Feature {feature} has activations too large for exact sums of them and their squares. The SAE has diverged: "
        "train it again with a lower learning rate."
    )
