"""evaluation.html: an evaluation for people, in one file that loads nothing else. It follows from evaluation.json.

Below each chart stands what it says in this SAE's numbers (`sentences`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.evaluate import sentences
from kubesae.page import charts, document, histogram, named_bars, paragraph, section, table, tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.evaluate.report import CrossEntropy, Evaluation, Histogram

_FEW_BARS = 15


def page(report: Evaluation) -> str:
    """Return the page."""
    title = f"{report.sae}: evaluation"
    subtitle = (
        f"{report.architecture}, {report.features:,} features, layer {report.layer}; {report.rows:,} validation rows "
        f"in {report.blocks} blocks ({report.flagged_share:.2%} more are flagged and left out)"
    )
    return document(title, subtitle, [tiles(_tiles(report)), *_sections(report)])


def _tiles(report: Evaluation) -> Iterator[tuple[str, str]]:
    yield f"{report.fvu:.4f}", "FVU, validation"
    yield f"{report.fvu_pca32:.4f}", "FVU of PCA, rank 32"
    yield f"{report.l0:.1f}", "L0: features a token"
    loss = report.cross_entropy
    if loss is not None:
        yield _decimal(loss.recovered_zero), "CE loss recovered"
        yield _decimal(loss.kl_recovered_zero), "KL recovered"
    yield _decimal(report.shrinkage.gamma_about_mean), "shrinkage about the mean"
    yield f"{report.inactive_share:.2%}", "features never active here"
    yield f"{report.density.dense_share:.2%}", "dense features"


def _decimal(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _sections(report: Evaluation) -> Iterator[str]:
    yield section("Reconstruction", charts([_fvu(report), _shrinkage(report)]))
    loss = report.cross_entropy
    lost = charts(_model(loss)) if loss else paragraph(f"Not measured: {report.cross_entropy_reason}.")
    yield section("What the model loses", lost)
    yield section("Features", charts([*_features(report), *_tables(report)]))


def _fvu(report: Evaluation) -> str:
    bars = [
        ("this SAE", report.fvu, "train"),
        ("PCA, rank 32", report.fvu_pca32, "other"),
        ("with flagged rows", report.fvu_all_rows, "val"),
    ]
    return named_bars("Fraction of variance unexplained", bars, note=sentences.fvu(report))


def _shrinkage(report: Evaluation) -> str:
    shrinkage = report.shrinkage
    bars = [
        ("gamma", shrinkage.gamma, "train"),
        ("gamma about mean", shrinkage.gamma_about_mean, "val"),
        ("ratio of norms", shrinkage.norm_ratio, "other"),
        ("cosine", shrinkage.cosine, "other"),
    ]
    known = [(name, value, kind) for name, value, kind in bars if value is not None]
    return named_bars("Shrinkage (1: none)", known, note=sentences.shrinkage(shrinkage))


def _model(loss: CrossEntropy) -> Iterator[str]:
    bars = [
        ("clean", loss.clean, "other"),
        ("with the SAE", loss.spliced, "train"),
        ("ablated to mean", loss.mean_ablated, "val"),
        ("ablated to zero", loss.zero_ablated, "val"),
    ]
    yield named_bars("Cross-entropy (nats a token)", bars, note=sentences.cross_entropy(loss))
    bars = [
        ("with the SAE", loss.kl_spliced, "train"),
        ("ablated to mean", loss.kl_mean_ablated, "val"),
        ("ablated to zero", loss.kl_zero_ablated, "val"),
    ]
    yield named_bars("KL divergence from the clean model (nats a token)", bars, note=sentences.divergence(loss))


def _features(report: Evaluation) -> Iterator[str]:
    density, similarity = report.density, report.similarity
    edges, counts = _with_room(report.l0_rows.histogram)
    yield histogram("Rows by L0", edges, counts, x_label="active features", note=sentences.l0(report))
    yield histogram(
        "Features by density",
        density.log10_histogram.edges,
        density.log10_histogram.counts,
        x_label="log10 of the share of rows",
        note=sentences.density(report),
    )
    if similarity is not None:
        yield histogram(
            "Features by largest cosine",
            similarity.histogram.edges,
            similarity.histogram.counts,
            x_label="cosine with the nearest decoder row",
            note=sentences.similarity(similarity),
        )


def _with_room(found: Histogram) -> tuple[list[float], list[int]]:
    """Return a histogram of whole numbers with empty bars beside the others where these are few, as TopK's one is."""
    edges, counts = list(found.edges), list(found.counts)
    while len(counts) < _FEW_BARS:
        if edges[0] > 0:
            edges.insert(0, edges[0] - 1)
            counts.insert(0, 0)
        edges.append(edges[-1] + 1)
        counts.append(0)
    return edges, counts


def _tables(report: Evaluation) -> Iterator[str]:
    if report.similarity is not None:
        rows = [(f"{pair.feature} and {pair.other}", f"{pair.cosine:.4f}") for pair in report.similarity.closest]
        yield table(("Features", "Cosine"), rows, title="Closest features")
    if report.density.densest:
        rows = [(str(one.feature), f"{one.share:.2%}") for one in report.density.densest]
        yield table(("Feature", "Active on"), rows, title="Densest features")
