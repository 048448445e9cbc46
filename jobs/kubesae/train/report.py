"""report.html: learning curves, final numbers and advice of one training, in one file that loads nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from kubesae.page import Series, line_chart, table, whole_page
from kubesae.sae.metrics import PCA_RANK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.train.metrics import Line

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
    charts = _charts(steps, epochs, sparse=training["architecture"] != "relu")
    title = f"{about['name']}: SAE of layer {about['layer']} of {about['model']}"
    subtitle = (
        f"{training['architecture']}, {training['d_sae']:,} features, {len(epochs)} epochs, "
        f"{steps[-1]['rows'] if steps else 0:,} tokens seen"
    )
    return whole_page(
        title,
        subtitle,
        _numbers(best),
        "<h2>What the numbers say</h2><ul>",
        *(f"<li>{escape(sentence)}</li>" for sentence in advice),
        f'</ul><h2>Learning curves</h2><div class="charts">{"".join(charts)}</div>',
        f"<h2>Epochs</h2>{_table(epochs, best)}",
        f"<h2>Settings</h2>{_settings(about)}",
    )


def _numbers(best: dict[str, Any]) -> str:
    pca = best[f"fvu_pca{PCA_RANK}"]
    shown = (
        (f"{best['fvu']:.4f}", "FVU, validation"),
        (f"{pca:.4f}", f"FVU of PCA, rank {PCA_RANK}"),
        (f"{best['l0']:.1f}", "L0: features a token"),
        (f"{best['dead_share']:.2%}", "dead features"),
        (f"{best['val_loss']:.6f}", "validation loss"),
        (f"{best['epoch']}", "best epoch"),
    )
    return (
        '<div class="numbers">' + "".join(f"<div><b>{n}</b><span>{label}</span></div>" for n, label in shown) + "</div>"
    )


def _charts(steps: Sequence[Line], epochs: Sequence[Line], *, sparse: bool) -> list[str]:
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
    charts = [
        both("Loss", "loss", "val_loss", log=True),
        both("FVU (train: normalised MSE)", "mse", "fvu", pca, log=True),
        both("L0: active features a token", "l0", "l0", log=not sparse),
        line_chart("Dead features (%)", [dead], x_label="step"),
        one("Learning rate", "lr"),
        one("Tokens per second", "tokens_per_second"),
    ]
    if not sparse:
        charts.append(one("L1 coefficient", "l1_coeff"))
    return charts


def _table(epochs: Sequence[Line], best: dict[str, Any]) -> str:
    rows = [
        [form.format(line[name]) for name, _, form in _COLUMNS] + ["best" if line["epoch"] == best["epoch"] else ""]
        for line in epochs
    ]
    return table([*(label for _, label, _ in _COLUMNS), ""], rows)


def _settings(about: dict[str, Any]) -> str:
    shown = {
        "data identity": about["identity"],
        "model": f"{about['model']} ({about['model_revision']})",
        **about["training"],
        **{f"numerics: {name}": value for name, value in about["numerics"].items()},
    }
    items = (
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in shown.items() if value is not None
    )
    return f"<dl>{''.join(items)}</dl>"
