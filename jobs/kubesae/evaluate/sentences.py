"""What each chart of an evaluation says, in words and with the SAE's own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubesae.evaluate.report import CrossEntropy, Evaluation, Shrinkage, Similarity

# Within this share of 1 a reconstruction is not called too short or too long.
_UNBIASED = 0.02


def fvu(report: Evaluation) -> str:
    """Say what the FVU is worth beside PCA."""
    explained = f"The SAE explains {1 - report.fvu:.1%} of the variance with {report.l0:.1f} features a row"
    if report.fvu < report.fvu_pca32:
        share = f", and leaves {report.fvu / report.fvu_pca32:.2f} times as much open as the best 32 directions do"
        return f"{explained}{share}. {_flagged(report)}"
    if report.fvu_pca32 == 0:
        return f"{explained}. The rows have no more than 32 directions, so PCA leaves nothing. {_flagged(report)}"
    worse = f"; 32 fixed directions leave less ({report.fvu_pca32:.4f}), so its features do not pay yet"
    return f"{explained}{worse}. {_flagged(report)}"


def _flagged(report: Evaluation) -> str:
    if report.flagged_share == 0:
        return "No row is flagged."
    return f"With the {report.flagged_share:.2%} of the rows that are flagged, FVU is {report.fvu_all_rows:.4f}."


def shrinkage(found: Shrinkage) -> str:
    """Say whether reconstructions are too short."""
    gamma = found.gamma_about_mean
    if gamma is None:
        return "Undefined: no reconstruction is along its row."
    raw = "" if found.gamma is None else f"; of raw rows it is {found.gamma:.4f}"
    if abs(gamma - 1) <= _UNBIASED:
        return f"About the mean, reconstructions are as long as they should be (gamma {gamma:.4f}){raw}."
    way = "short" if gamma < 1 else "long"
    if found.gamma is not None and abs(found.gamma - 1) < abs(gamma - 1):
        raw = f"; the mean, which b_dec gives, hides some of it in the raw {found.gamma:.4f}"
    return f"About the mean, reconstructions are {abs(1 - gamma):.1%} too {way} (gamma {gamma:.4f}){raw}."


def cross_entropy(loss: CrossEntropy) -> str:
    """Say how much of the loss is kept."""
    more = loss.spliced - loss.clean
    way = "higher" if more >= 0 else "lower"
    said = f"With the SAE in its layer the model's loss is {abs(more):.4f} nats a token {way} ({_predictions(loss)})"
    if loss.recovered_zero is None:
        return f"{said}. Ablation to zero does no damage, so there is nothing to recover."
    mean = "" if loss.recovered_mean is None else f", {loss.recovered_mean:.1%} of that of the mean"
    return f"{said}: {loss.recovered_zero:.1%} of the damage of ablation to zero is avoided{mean}."


def _predictions(loss: CrossEntropy) -> str:
    return f"{loss.predictions:,} predictions in {loss.contexts} contexts"


def divergence(loss: CrossEntropy) -> str:
    """Say how far predictions move."""
    said = f"With the SAE the model's predictions move by {loss.kl_spliced:.4f} nats a token"
    if loss.kl_recovered_zero is None:
        return f"{said}. Ablation to zero moves nothing, so there is nothing to recover."
    mean = "" if loss.kl_recovered_mean is None else f", and {loss.kl_recovered_mean:.1%} of what the mean does"
    return f"{said}: {loss.kl_recovered_zero:.1%} of what ablation to zero does is avoided{mean}."


def l0(report: Evaluation) -> str:
    """Say how L0 is spread."""
    q = report.l0_rows.quantiles
    if q.least == q.most:
        return f"Every row has exactly {q.least:.0f} active features."
    return (
        f"A row has {report.l0:.1f} active features on average. Half of the rows have {q.p25:.0f} to {q.p75:.0f}, "
        f"nine in ten {q.p05:.0f} to {q.p95:.0f}; the extremes are {q.least:.0f} and {q.most:.0f}."
    )


def density(report: Evaluation) -> str:
    """Say how often features are active."""
    found = report.density
    if found.quantiles is None:
        return "No feature is active on any of these rows."
    often = f"The median feature is active on one row in {1 / found.quantiles.median:,.0f}"
    never = f"{report.inactive_share:.2%} of the features are active on none of the {report.rows:,} rows"
    dense = f"{found.dense:,} ({found.dense_share:.2%}) on more than one in ten"
    return f"{often}. {never}, {dense}."


def similarity(found: Similarity) -> str:
    """Say how alike features are."""
    q = found.quantiles
    said = f"The median feature is at a cosine of {q.median:.2f} from the nearest one, one in twenty above {q.p95:.2f}"
    if found.alike_share == 0:
        return f"{said}. None is above 0.9: no feature says what another one says."
    return f"{said}. {found.alike_share:.2%} of the features are above 0.9: they nearly say what another one says."
