"""What `reason/<sae>/<name>/summary.json` and `contrasts.parquet` say: fields, and the rule of survival.

A feature has survived a ranking only where everything that could refute it did not: its p over all features on the
held-out half, the size of the effect there, the injection of its tokens, and paraphrases.
"""

from __future__ import annotations

import math
from typing import Literal

import pyarrow as pa
from pydantic import Field

from kubesae.experiment import Section, canonical_json
from kubesae.reason.traces import TraceSource  # noqa: TC001 - pydantic looks at it

SIGNIFICANT = 0.05
"""adjusted p, at most"""
EFFECT = 0.5
"""Cohen's d on the held-out half, at least, in the direction that the feature was ranked for: Cohen's medium effect"""
STABLE = 0.7
"""share of pairs of an original and a rewriting in which the feature stays, at least"""

CONTRASTS = pa.schema(
    {
        "contrast": pa.string(),  # reasoning, reason-score, correct: which ranking
        "feature": pa.int32(),
        "rank": pa.int32(),  # from 1, on the half that features are ranked on; null: not among those tested
        "score": pa.float64(),  # what it was ranked by there
        "mean_a": pa.float64(),  # all of these on the held-out half
        "mean_b": pa.float64(),
        "d": pa.float64(),
        "auc": pa.float64(),
        "frequency_a": pa.float64(),
        "frequency_b": pa.float64(),
        "frequency_ratio": pa.float64(),
        "reason_score": pa.float64(),
        "p": pa.float64(),
        "p_adjusted": pa.float64(),
        "injection": pa.string(),
        "injection_way": pa.string(),
        "injection_d": pa.float64(),
        "injection_p": pa.float64(),
        "injection_before": pa.float64(),
        "injection_after": pa.float64(),
        "injection_reasoning": pa.float64(),
        "paraphrase_pairs": pa.int32(),
        "paraphrase_stability": pa.float64(),
        "survived": pa.bool_(),
        "refuted_by": pa.list_(pa.string()),
    }
)


class Ranked(Section):
    """A feature of a ranking: statistics on the held-out half, and what came of the attempts to refute it."""

    rank: int = Field(description="from 1, on the other half")
    feature: int = Field(description="which")
    label: str = Field(description="its label, where the interpretation has one")
    score: float | None = Field(description="what it was ranked by; null: infinite")
    d: float | None = Field(description="Cohen's d; null: infinite")
    auc: float = Field(description="area under the ROC curve")
    frequency_ratio: float | None = Field(description="share of active tokens, of the one to the other; null: infinite")
    reason_score: float | None = Field(description="ReasonScore; null where no reasoning word was written")
    p: float = Field(description="two-sided, Mann and Whitney")
    p_adjusted: float = Field(description="by Benjamini and Hochberg over all active features")
    injection: str = Field(description="class by the injection of its top tokens into ordinary text")
    injection_d: float | None = Field(description="Cohen's d of the injection; null: infinite")
    paraphrase_stability: float | None = Field(description="share of rewritings in which it stays; null: no pairs")
    survived: bool = Field(description="whether nothing refuted it")
    refuted_by: tuple[str, ...] = Field(description="what did")


class Ranking(Section):
    """One ranking of features."""

    contrast: Literal["reasoning", "reason-score", "correct"] = Field(description="which")
    title: str = Field(description="in words")
    texts: tuple[int, int, int, int] | None = Field(
        description="texts of either population on the half for ranking, then on the held-out one"
    )
    missing: str = Field(description="why there is no ranking; empty where there is one")
    top: tuple[Ranked, ...] = Field(description="the features that were tested")
    paraphrases_stay: float | None = Field(description="share of top features active in an original that stay; mean")


class Summary(Section):
    """`reason/<sae>/<name>/summary.json`."""

    format: Literal[2] = Field(2, description="version of the format")
    name: str = Field(description="name of the set of problems")
    source: TraceSource = Field(description="what the traces were made from")
    traces_sha256: str = Field(description="SHA-256 of traces.parquet")
    interpretation_sha256: str = Field(
        description="SHA-256 of the interpret.json of ordinary text; empty: there was none"
    )
    settings: dict[str, int] = Field(description="how many features, texts and problems the tests took, and their seed")
    problems: int = Field(description="problems")
    scored: int | None = Field(description="those with a right answer to compare with; null: nothing was generated")
    correct: int | None = Field(description="answers that were right; null: nothing was generated")
    accuracy: float | None = Field(description="share of the scored ones; null where there are none")
    accuracy_interval: tuple[float, float] | None = Field(description="of it, 95 %, by Wilson")
    tokens: int = Field(description="tokens of all traces")
    flagged: int = Field(description="of these left out: special tokens and norm outliers")
    ended: int | None = Field(description="traces that ended by themselves; null: nothing was generated")
    not_generated: str = Field(description="why nothing was generated, and what would; empty where it was")
    rankings: tuple[Ranking, ...] = Field(description="rankings of features, each beside its tests")
    contrasts_sha256: str = Field(description="SHA-256 of contrasts.parquet")

    def to_json(self) -> bytes:
        """Return the bytes of `summary.json`."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def survived(self) -> int:
        """Features that survived one ranking or more."""
        return len({one.feature for ranking in self.rankings for one in ranking.top if one.survived})


def refutations(
    *, p_adjusted: float, d: float, towards: float, injection: str | None, stability: float | None
) -> list[str]:
    """Return what refutes a feature, in words; nothing where it survived.

    Args:
        p_adjusted: on the held-out half.
        d: Cohen's d there.
        towards: 1 or -1, the sign of what it was ranked for.
        injection: its class; None where the test could not be made, which counts against it.
        stability: of paraphrases; None likewise.

    """
    found = []
    if not p_adjusted <= SIGNIFICANT:
        found.append(f"adjusted p {p_adjusted:.2g} above {SIGNIFICANT}")
    if not d * towards >= EFFECT:
        found.append(f"held-out d {d:.2f}, short of {EFFECT * towards:+.1f}")
    if injection is None:
        found.append("injection not tested")
    elif injection != "context-driven":
        found.append(f"injection {injection}" if injection == "undecided" else injection)
    if stability is None:
        found.append("paraphrases not tested")
    elif stability < STABLE:
        found.append(f"stays in {stability:.0%} of paraphrases, short of {STABLE:.0%}")
    return found


def finite(value: float) -> float | None:
    """Return a number, or None where JSON has none for it."""
    return value if math.isfinite(value) else None


def wilson(right: int, of: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share (Wilson, 1927); None of nothing."""
    if of == 0:
        return None
    z = 1.959963984540054  # the normal distribution's 97.5 % point
    share = right / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return max(0.0, middle - half), min(1.0, middle + half)
