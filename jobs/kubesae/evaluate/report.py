"""`sae/<name>/evaluation.json`, and what it says to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.experiment import Section, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator


class CrossEntropy(Section):
    """Next-token cross-entropy in nats, by what stands at the layer's unflagged positions."""

    contexts: int = Field(description="validation contexts that the model was run on")
    predictions: int = Field(description="next-token predictions that each loss is the mean of")
    clean: float = Field(description="the layer's own output")
    spliced: float = Field(description="the SAE's reconstruction")
    zero_ablated: float = Field(description="zeros")
    mean_ablated: float = Field(description="the mean of the unflagged validation rows")
    recovered_zero: float | None = Field(
        description="(zero_ablated - spliced) / (zero_ablated - clean); null where that ablation does no damage"
    )
    recovered_mean: float | None = Field(
        description="(mean_ablated - spliced) / (mean_ablated - clean); null where that ablation does no damage"
    )


class Evaluation(Section):
    """How good an SAE is on the validation blocks. Formulas: `sae.metrics` and `evaluate.splice`."""

    format: Literal[1] = Field(1, description="version of the report")
    identity: str = Field(description="identity of the data")
    sae: str = Field(description="name of the SAE")
    sae_sha256: str = Field(description="SHA-256 of its weights")
    layer: int = Field(description="layer whose output it reconstructs")
    blocks: int = Field(description="validation blocks")
    rows: int = Field(description="unflagged rows of these, over which the metrics run")
    flagged_share: float = Field(description="share of their rows that is flagged and left out")
    fvu: float = Field(description="fraction of variance unexplained")
    fvu_all_rows: float = Field(description="the same over all rows, flagged ones included")
    fvu_pca32: float = Field(description="FVU of rank-32 PCA fitted to the same rows: what the SAE's is held against")
    l0: float = Field(description="mean number of active features of a row")
    inactive_share: float = Field(description="share of features active on none of these rows")
    dead_share: float | None = Field(
        description="share of features active on no training row of the last whole epoch, which training recorded; "
        "null where it did not"
    )
    cross_entropy: CrossEntropy | None = Field(description="what the model loses; null where it was not measured")
    cross_entropy_reason: str | None = Field(description="why it was not measured")

    def to_json(self) -> bytes:
        """Return the report's bytes."""
        return canonical_json(self.model_dump(mode="json"))


def report_lines(report: Evaluation) -> Iterator[str]:
    """Lines of a report."""
    yield (
        f"SAE {report.sae} on {report.rows:,} validation rows of layer {report.layer} in {report.blocks} blocks "
        f"({report.flagged_share:.2%} flagged)"
    )
    beside = f"rank-32 PCA: {report.fvu_pca32:.4f}; with flagged rows: {report.fvu_all_rows:.4f}"
    yield f"  FVU                {report.fvu:.4f}   ({beside})"
    yield f"  L0                 {report.l0:.1f}"
    dead = "unknown" if report.dead_share is None else f"{report.dead_share:.2%}"
    yield f"  dead features      {dead}   (active on none of these rows: {report.inactive_share:.2%})"
    loss = report.cross_entropy
    if loss is None:
        yield f"  CE loss recovered  not measured: {report.cross_entropy_reason}"
        return
    zero, mean = (_share(value) for value in (loss.recovered_zero, loss.recovered_mean))
    yield f"  CE loss recovered  {zero}   (against ablation to the mean: {mean})"
    yield (
        f"  CE loss            {loss.clean:.4f} clean, {loss.spliced:.4f} with the SAE, {loss.mean_ablated:.4f} mean, "
        f"{loss.zero_ablated:.4f} zero   ({loss.predictions:,} predictions in {loss.contexts} contexts)"
    )


def _share(value: float | None) -> str:
    return "undefined: the ablation does no damage" if value is None else f"{value:.4f}"
