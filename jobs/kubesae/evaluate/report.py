"""`sae/<name>/evaluation.json`: how good an SAE is on the validation blocks."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from kubesae.experiment import Section, canonical_json

FORMAT: Final = 2


class Quantiles(Section):
    """Each is the smallest value that at least this share of all values do not exceed."""

    least: float = Field(description="the smallest value")
    p01: float = Field(description="1%")
    p05: float = Field(description="5%")
    p25: float = Field(description="25%")
    median: float = Field(description="50%")
    p75: float = Field(description="75%")
    p95: float = Field(description="95%")
    p99: float = Field(description="99%")
    most: float = Field(description="the largest value")


class Histogram(Section):
    """Counts over bins: bin i holds what is at least `edges[i]` and below `edges[i + 1]`, the last one its end, too."""

    edges: tuple[float, ...] = Field(description="edges of the bins, one more than there are counts")
    counts: tuple[int, ...] = Field(description="how many values lie in each")


class RowL0(Section):
    """How L0 is spread over the unflagged rows."""

    quantiles: Quantiles = Field(description="of the rows' L0")
    histogram: Histogram = Field(description="rows by L0")


class Dense(Section):
    """A feature that is active often."""

    feature: int = Field(description="its number")
    share: float = Field(description="share of the unflagged rows on which it is active")


class Density(Section):
    """How often features are active: a feature's density is the share of the unflagged rows on which it is active."""

    quantiles: Quantiles | None = Field(description="densities of the features active at all; null where none is")
    log10_histogram: Histogram = Field(description="features active at all, by log10 of their density")
    dense: int = Field(description="features with a density above 0.1")
    dense_share: float = Field(description="their share of all features")
    densest: tuple[Dense, ...] = Field(description="the densest of them, ten at most, the densest first")


class Shrinkage(Section):
    """How much too short reconstructions are. Formulas: `evaluate.sums`. Null where a denominator is 0."""

    gamma: float | None = Field(description="relative bias E|x_hat|^2 / E[x . x_hat]; below 1: too short")
    gamma_about_mean: float | None = Field(description="the same of x and x_hat less the mean of x")
    norm_ratio: float | None = Field(description="E|x_hat| / E|x|")
    cosine: float | None = Field(description="mean cosine of x and x_hat")


class Pair(Section):
    """Two features and the cosine of their decoder rows."""

    feature: int = Field(description="the lower number")
    other: int = Field(description="the higher number")
    cosine: float = Field(description="cosine of their decoder rows")


class Similarity(Section):
    """Each feature's largest cosine with another feature's decoder row."""

    quantiles: Quantiles = Field(description="of the largest cosines")
    histogram: Histogram = Field(description="features by largest cosine; one below 0 counts in the first bin")
    alike_share: float = Field(description="share of the features whose largest cosine is above 0.9")
    closest: tuple[Pair, ...] = Field(description="the closest pairs, ten at most, the closest first")


class CrossEntropy(Section):
    """Next-token losses in nats, by what stands at the layer's unflagged positions.

    Each is the mean over the same predictions. The KL divergence is that of the clean model's prediction from the other
    one's: sum over tokens of p_clean (log p_clean - log p).
    """

    contexts: int = Field(description="validation contexts that the model was run on")
    predictions: int = Field(description="next-token predictions that each loss is the mean of")
    clean: float = Field(description="cross-entropy with the layer's own output")
    spliced: float = Field(description="cross-entropy with the SAE's reconstruction")
    zero_ablated: float = Field(description="cross-entropy with zeros")
    mean_ablated: float = Field(description="cross-entropy with the mean of the unflagged validation rows")
    recovered_zero: float | None = Field(
        description="(zero_ablated - spliced) / (zero_ablated - clean); null where that ablation does no damage"
    )
    recovered_mean: float | None = Field(
        description="(mean_ablated - spliced) / (mean_ablated - clean); null where that ablation does no damage"
    )
    kl_spliced: float = Field(description="KL divergence with the SAE's reconstruction")
    kl_zero_ablated: float = Field(description="KL divergence with zeros")
    kl_mean_ablated: float = Field(description="KL divergence with the mean")
    kl_recovered_zero: float | None = Field(
        description="1 - kl_spliced / kl_zero_ablated; null where that ablation does no damage"
    )
    kl_recovered_mean: float | None = Field(
        description="1 - kl_spliced / kl_mean_ablated; null where that ablation does no damage"
    )


class Evaluation(Section):
    """How good an SAE is on the validation blocks. Formulas: `sae.metrics`, `evaluate.sums` and `evaluate.splice`."""

    format: Literal[2] = Field(2, description="version of the report")
    identity: str = Field(description="identity of the data")
    sae: str = Field(description="name of the SAE")
    sae_sha256: str = Field(description="SHA-256 of its weights")
    architecture: str = Field(description="its architecture")
    features: int = Field(description="its features")
    layer: int = Field(description="layer whose output it reconstructs")
    blocks: int = Field(description="validation blocks")
    rows: int = Field(description="unflagged rows of these, over which the metrics run")
    flagged_share: float = Field(description="share of their rows that is flagged and left out")
    fvu: float = Field(description="fraction of variance unexplained")
    fvu_all_rows: float = Field(description="the same over all rows, flagged ones included")
    fvu_pca32: float = Field(description="FVU of rank-32 PCA fitted to the same rows: what the SAE's is held against")
    shrinkage: Shrinkage = Field(description="how much too short reconstructions are")
    l0: float = Field(description="mean number of active features of a row")
    l0_rows: RowL0 = Field(description="how that number is spread over the rows")
    inactive_share: float = Field(description="share of features active on none of these rows")
    dead_share: float | None = Field(
        description="share of features active on no training row of the last whole epoch, which training recorded; "
        "null where it did not"
    )
    density: Density = Field(description="how often features are active")
    similarity: Similarity | None = Field(description="how alike features are; null of an SAE with one feature")
    cross_entropy: CrossEntropy | None = Field(description="what the model loses; null where it was not measured")
    cross_entropy_reason: str | None = Field(description="why it was not measured")

    def to_json(self) -> bytes:
        """Return the report's bytes."""
        return canonical_json(self.model_dump(mode="json"))
