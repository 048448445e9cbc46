"""report.html: learning curves, final numbers and advice of one training, in one file that loads nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.page import Series, bullets, charts, document, line_chart, pairs, section, table, tiles
from kubesae.sae.metrics import PCA_RANK

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.train.metrics import Line

COEFFICIENTS = {"relu": "L1 coefficient", "gated": "L1 coefficient", "jumprelu": "L0 coefficient"}
"""The name of what sets the L0, of architectures without k. Metrics have it as `l1_coeff`, of jumprelu too."""
_COLUMNS = (
    ("epoch", "Epoch", "{}"),
    ("step", "Step", "{:,}"),
    ("train_loss", "Train loss", "{:.6f}"),
    ("val_loss", "Val loss", "{:.6f}"),
    ("fvu", "FVU", "{:.4f}"),
    ("l0", "L0", "{:.1f}"),
    ("dead_share", "Dead", "{:.2%}"),
    ("mse", "MSE (normalised)", "{:.4f}"),
    ("mse_raw", "MSE (raw)", "{:.4g}"),
)


def report_html(about: dict[str, Any], lines: Sequence[Line], best: dict[str, Any], advice: Sequence[str]) -> str:
    """Return the page.

    Args:
        about: what metadata.json says of the training.
        lines: all metrics, by step.
        best: metrics of the best epoch.
        advice: sentences.

    """
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    training = about["training"]
    curves = _curves(steps, epochs, COEFFICIENTS.get(training["architecture"]))
    title = f"{about['name']}: SAE of layer {about['layer']} of {about['model']}"
    subtitle = (
        f"{training['architecture']}, {training['d_sae']:,} features, {len(epochs)} epochs, "
        f"{steps[-1]['rows'] if steps else 0:,} tokens seen"
    )
    return document(
        title,
        subtitle,
        [
            tiles(_numbers(best)),
            section("What the numbers say", bullets(advice)),
            section("Learning curves", charts(curves)),
            section("Epochs", _table(epochs, best)),
            section("Settings", pairs(_settings(about))),
        ],
    )


def _numbers(best: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{best['fvu']:.4f}", "FVU, validation"
    yield f"{best[f'fvu_pca{PCA_RANK}']:.4f}", f"FVU of PCA, rank {PCA_RANK}"
    yield f"{best['l0']:.1f}", "L0: features a token"
    yield f"{best['dead_share']:.2%}", "dead features"
    yield f"{best['val_loss']:.6f}", "validation loss"
    yield f"{best['epoch']}", "best epoch"


def _curves(steps: Sequence[Line], epochs: Sequence[Line], coefficient: str | None) -> list[str]:
    """Return the charts; `coefficient` is what the architecture's sparsity coefficient is called, if it has one."""

    def curve(lines: Sequence[Line], name: str) -> list[tuple[float, float]]:
        return [(line["step"], line[name]) for line in lines]

    def both(title: str, train: str, validation: str, *extra: Series, log: bool = False) -> str:
        series = [
            Series("train", "train", curve(steps, train)),
            Series("validation", "val", curve(epochs, validation), dots=True),
            *extra,
        ]
        return line_chart(title, series, x_label="step", log=log)

    def one(title: str, name: str) -> str:
        return line_chart(title, [Series("", "train", curve(steps, name))], x_label="step")

    dead = Series("of the epoch", "val", [(x, 100 * y) for x, y in curve(epochs, "dead_share")], dots=True)
    pca = Series(f"PCA, rank {PCA_RANK}", "other", curve(epochs, f"fvu_pca{PCA_RANK}"))
    found = [
        both("Loss", "loss", "val_loss", log=True),
        both("FVU (train: normalised MSE)", "mse", "fvu", pca, log=True),
        both("L0: active features a token", "l0", "l0", log=coefficient is not None),
        line_chart("Dead features (%)", [dead], x_label="step"),
        one("Learning rate", "lr"),
        one("Tokens per second", "tokens_per_second"),
    ]
    if coefficient is not None:
        found.append(one(coefficient, "l1_coeff"))
    return found


def _table(epochs: Sequence[Line], best: dict[str, Any]) -> str:
    rows = [
        [form.format(line[name]) for name, _, form in _COLUMNS] + ["best" if line["epoch"] == best["epoch"] else ""]
        for line in epochs
    ]
    return table([*(label for _, label, _ in _COLUMNS), ""], rows)


def _settings(about: dict[str, Any]) -> Iterator[tuple[str, str]]:
    shown = {
        "data identity": about["identity"],
        "model": f"{about['model']} ({about['model_revision']})",
        **about["training"],
        **{f"numerics: {name}": value for name, value in about["numerics"].items()},
    }
    return ((name, str(value)) for name, value in shown.items() if value is not None)
