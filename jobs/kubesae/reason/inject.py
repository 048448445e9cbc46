"""The falsification test: are a feature's favourite tokens enough, without any reasoning?

For each feature its top tokens, and its top bigrams, are put into ordinary text at random places, and its largest
activation in the text is compared with that of the same text as it was: the method of arXiv 2601.05679, which found 45
to 90 of 100 contrastively chosen features to be about tokens. Classes are by Cohen's d of the better of the two ways
(Cohen's conventions, as there), with p by Mann and Whitney's test:

    token-driven              d >= 0.8, p < 0.01
    partially token-driven    d >= 0.5, p < 0.01
    weakly token-driven       d >= 0.2, p < 0.05
    context-driven            d < 0.2: the tokens alone do not do it
    undecided                 else: too few texts to tell, which is no reason to believe in the feature

Legend: S texts, T tokens of one, N entries, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.experiment import sha256_hex
from kubesae.reason.contrast import contrast
from kubesae.reason.means import Means

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kubesae.features import Codes
    from kubesae.reason.reader import Found, Reader

    Ids = npt.NDArray[np.uint32]
    Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
    Floats = npt.NDArray[np.float64]

CLASSES = ("context-driven", "weakly token-driven", "partially token-driven", "token-driven", "undecided")
LARGE, MEDIUM, SMALL = 0.8, 0.5, 0.2
ALPHA, ALPHA_WEAK = 0.01, 0.05
TOP = 10
"""tokens, and bigrams, of a feature that are put in"""
TOKENS, BIGRAMS = 3, 2
"""how many of them a text gets"""


@dataclass(frozen=True, slots=True)
class Favourites:
    """A feature's top tokens and bigrams: those with the most of its activation, the most first."""

    tokens: tuple[int, ...]
    bigrams: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Injected:
    """What came of the test.

    Attributes:
        verdict: one of CLASSES.
        way: `tokens` or `bigrams`, whichever had the larger effect.
        d: Cohen's d of the largest activations with and without what was put in.
        p: of the same, Mann and Whitney.
        before: mean largest activation in the texts as they were.
        after: with what was put in.
        reasoning: in texts of reasoning.

    """

    verdict: str
    way: str
    d: float
    p: float
    before: float
    after: float
    reasoning: float


def entries_of(files: Iterable[Codes], features: Sequence[int]) -> dict[int, Entries]:
    """Return the rows on which features are active, ascending, and their activations: one pass, a file in memory."""
    rows: dict[int, list[npt.NDArray[np.int64]]] = {feature: [np.zeros(0, np.int64)] for feature in features}
    values: dict[int, list[npt.NDArray[np.float32]]] = {feature: [np.zeros(0, np.float32)] for feature in features}
    for codes in files:
        for feature in features:
            row_N, value_N = codes.of(feature)
            rows[feature].append(row_N)
            values[feature].append(value_N)
    return {feature: (np.concatenate(rows[feature]), np.concatenate(values[feature])) for feature in features}


def favourites(
    entries: Mapping[int, Entries], tokens_R: Ids, begins_R: npt.NDArray[np.bool_], chosen_R: npt.NDArray[np.bool_]
) -> dict[int, Favourites]:
    """Return the favourites of features.

    Args:
        entries: of each feature, rows and activations.
        tokens_R: the token of each row.
        begins_R: whether a trace begins with it: the row before is then another trace's.
        chosen_R: rows that count.

    """
    found = {}
    for feature, (all_N, all_value_N) in entries.items():
        kept_N = chosen_R[all_N]
        row_N, value_N = all_N[kept_N], all_value_N[kept_N]
        second_N = ~begins_R[row_N]
        pair_N = tokens_R[row_N[second_N] - 1].astype(np.int64) << 32 | tokens_R[row_N[second_N]]
        bigrams = _most(pair_N, value_N[second_N])
        found[feature] = Favourites(
            tuple(_most(tokens_R[row_N].astype(np.int64), value_N)),
            tuple((pair >> 32, pair & 0xFFFFFFFF) for pair in bigrams),
        )
    return found


def _most(what_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float32]) -> list[int]:
    """Return what has the largest sums of values, the largest first; of equal ones the lower number."""
    names, place_N = np.unique(what_N, return_inverse=True)
    sums = np.bincount(place_N, value_N.astype(np.float64), len(names))
    return [int(name) for name in names[np.argsort(-sums, kind="stable")[:TOP]]]


def inject(ids_T: Ids, pieces: Sequence[Sequence[int]], draw: np.random.Generator) -> Ids:
    """Return a text with each of `pieces`, which are runs of tokens, put in at a random place after its first token."""
    out = ids_T.tolist()
    for piece in pieces:
        at = int(draw.integers(1, len(out) + 1))
        out[at:at] = piece
    return np.array(out, np.uint32)


def chosen_pieces(found: Favourites, way: str, draw: np.random.Generator) -> list[tuple[int, ...]]:
    """Return what one text gets, drawn from a feature's favourites."""
    pool: list[tuple[int, ...]] = [(token,) for token in found.tokens] if way == "tokens" else list(found.bigrams)
    many = min(TOKENS if way == "tokens" else BIGRAMS, len(pool))
    return [pool[place] for place in draw.choice(len(pool), many, replace=False)] if many else []


def run_injection(
    reader: Reader,
    texts: Sequence[Ids],
    reasoning: Mapping[int, Floats],
    favourite: Mapping[int, Favourites],
    seed: int,
) -> dict[int, Injected]:
    """Test features.

    Args:
        reader: runs the model.
        texts: ordinary texts, one at least.
        reasoning: of each feature its largest activation in texts of reasoning, for comparison.
        favourite: the features, each with its favourites.
        seed: of places and choices; they also depend on feature and text alone.

    """
    plain = reader.read(texts)
    ways = [(feature, way) for feature in favourite for way in ("tokens", "bigrams")]
    altered, about = [], []
    for feature, way in ways:
        for number, ids_T in enumerate(texts):
            draw = np.random.default_rng(int(sha256_hex(f"{seed},{feature},{way},{number}".encode())[:16], 16))
            altered.append(inject(ids_T, chosen_pieces(favourite[feature], way, draw), draw))
            about.append(feature)
    after = np.zeros(len(altered))

    def take(number: int, found: Found) -> None:
        after[number] = largest([found], about[number])[0]

    reader.each(altered, take)
    result: dict[int, Injected] = {}
    for (feature, way), after_S in zip(ways, after.reshape(len(ways), len(texts)), strict=True):
        before_S, reasoning_S = largest(plain, feature), reasoning[feature]
        d, p = effect(after_S, before_S)
        means = (float(part.mean()) if len(part) else 0.0 for part in (before_S, after_S, reasoning_S))
        one = Injected(classify(d, p), way, d, p, *means)
        if feature not in result or (one.d, -one.p) > (result[feature].d, -result[feature].p):
            result[feature] = one
    return result


def largest(found: Sequence[Found], feature: int) -> Floats:
    """Return a feature's largest activation on unflagged tokens of each text, float64 [S]; 0 where it is inactive."""
    return np.array(
        [one.value_N[(one.feature_N == feature) & one.unflagged()].max(initial=0) for one in found], np.float64
    )


def effect(after_S: Floats, before_S: Floats) -> tuple[float, float]:
    """Return Cohen's d, pooled over the two variances of populations as in that paper's code, and p."""
    difference = float(after_S.mean() - before_S.mean())
    deviation = float(np.sqrt((after_S.var() + before_S.var()) / 2))
    d = 0.0 if difference == 0 else difference / deviation if deviation else float(np.copysign(np.inf, difference))
    found = contrast(_one_feature(after_S), _one_feature(before_S))
    return d, float(found.p_F[0])


def _one_feature(value_S: Floats) -> Means:
    text_N = np.flatnonzero(value_S)
    ones_N = np.ones_like(text_N)
    return Means(1, np.ones(len(value_S), np.int64), text_N, np.zeros_like(text_N), value_S[text_N], ones_N)


def classify(d: float, p: float) -> str:
    """Return the class of an effect."""
    if d >= LARGE and p < ALPHA:
        return CLASSES[3]
    if d >= MEDIUM and p < ALPHA:
        return CLASSES[2]
    if d >= SMALL:
        return CLASSES[1] if p < ALPHA_WEAK else CLASSES[4]
    return CLASSES[0]
