"""What an evaluation says to a person at a terminal, on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.evaluate.report import CrossEntropy, Evaluation


def report_lines(report: Evaluation) -> Iterator[str]:
    """Lines of a report."""
    yield (
        f"SAE {report.sae} on {report.rows:,} validation rows of layer {report.layer} in {report.blocks} blocks "
        f"({report.flagged_share:.2%} flagged)"
    )
    yield from _reconstruction(report)
    yield from _features(report)
    if report.cross_entropy is None:
        yield f"  CE loss recovered  not measured: {report.cross_entropy_reason}"
    else:
        yield from _model(report.cross_entropy)


def _reconstruction(report: Evaluation) -> Iterator[str]:
    beside = f"rank-32 PCA: {report.fvu_pca32:.4f}; with flagged rows: {report.fvu_all_rows:.4f}"
    yield f"  FVU                {report.fvu:.4f}   ({beside})"
    shrinkage = report.shrinkage
    gamma, centred, norms, cosine = (
        "undefined" if value is None else f"{value:.4f}"
        for value in (shrinkage.gamma, shrinkage.gamma_about_mean, shrinkage.norm_ratio, shrinkage.cosine)
    )
    yield f"  shrinkage          {gamma}   (about the mean: {centred}; norms: {norms}; cosine: {cosine})"


def _features(report: Evaluation) -> Iterator[str]:
    l0 = report.l0_rows.quantiles
    middle = f"median {l0.median:.0f}, 90% of the rows {l0.p05:.0f} to {l0.p95:.0f}, most {l0.most:.0f}"
    yield f"  L0                 {report.l0:.1f}   ({middle})"
    dead = "unknown" if report.dead_share is None else f"{report.dead_share:.2%}"
    yield f"  dead features      {dead}   (active on none of these rows: {report.inactive_share:.2%})"
    density = report.density
    listed = f"active on more than 10% of the rows: {density.dense}"
    if density.densest:
        listed += f"; the densest is {density.densest[0].feature}, on {density.densest[0].share:.1%}"
    yield f"  dense features     {density.dense_share:.2%}   ({listed})"
    if report.similarity is not None:
        median = f"median of the largest cosine: {report.similarity.quantiles.median:.2f}"
        yield f"  alike features     {report.similarity.alike_share:.2%}   (cosine with another above 0.9; {median})"


def _model(loss: CrossEntropy) -> Iterator[str]:
    for name, zero, mean in (
        ("CE loss recovered", loss.recovered_zero, loss.recovered_mean),
        ("KL recovered     ", loss.kl_recovered_zero, loss.kl_recovered_mean),
    ):
        yield f"  {name}  {_share(zero)}   (against ablation to the mean: {_share(mean)})"
    yield (
        f"  CE loss            {loss.clean:.4f} clean, {loss.spliced:.4f} with the SAE, {loss.mean_ablated:.4f} mean, "
        f"{loss.zero_ablated:.4f} zero   ({loss.predictions:,} predictions in {loss.contexts} contexts)"
    )
    yield (
        f"  KL from clean      {loss.kl_spliced:.4f} with the SAE, {loss.kl_mean_ablated:.4f} mean, "
        f"{loss.kl_zero_ablated:.4f} zero"
    )


def _share(value: float | None) -> str:
    return "undefined, for that does no damage" if value is None else f"{value:.4f}"
