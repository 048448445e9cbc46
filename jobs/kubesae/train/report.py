"""report.html: learning curves, final numbers and advice of one training, in one file that loads nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from kubesae.sae.metrics import PCA_RANK
from kubesae.train.plot import Series, line_chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.train.metrics import Line

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f6f7f9; --text: #1c2330; --quiet: #667085; --line: #dfe3ea;
  --train: #2f6fdf; --val: #d9622b; --other: #7a8699; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161d; --card: #1a2029; --text: #e7ebf2; --quiet: #93a0b4;
  --line: #2c3542; --train: #6ea4ff; --val: #ff9a62; --other: #8c99ad; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 34px 0 12px; }
.quiet { color: var(--quiet); margin: 4px 0 22px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.numbers div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.numbers b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--quiet); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 4px 12px; font-weight: 600; }
.key { color: var(--quiet); font-weight: 400; font-size: 13px; margin-left: 14px; }
.key::before { content: ""; display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin: 0 6px 3px 0;
  background: currentColor; vertical-align: middle; }
.key.train::before { background: var(--train); } .key.val::before { background: var(--val); }
.key.other::before { background: var(--other); }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); } .axis { fill: var(--quiet); font-size: 12px; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.train { stroke: var(--train); } polyline.val { stroke: var(--val); }
polyline.other { stroke: var(--other); stroke-dasharray: 5 5; }
circle.train { fill: var(--train); } circle.val { fill: var(--val); } circle.other { fill: var(--other); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--quiet); font-weight: 500; } td:first-child, th:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
"""

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
    return "\n".join(
        (
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>',
            f'<body><main><h1>{escape(title)}</h1><p class="quiet">{escape(subtitle)}</p>',
            _numbers(best),
            "<h2>What the numbers say</h2><ul>",
            *(f"<li>{escape(sentence)}</li>" for sentence in advice),
            f'</ul><h2>Learning curves</h2><div class="charts">{"".join(charts)}</div>',
            f'<h2>Epochs</h2><div class="scroll">{_table(epochs, best)}</div>',
            f"<h2>Settings</h2>{_settings(about)}",
            "</main></body></html>\n",
        )
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
    head = "".join(f"<th>{label}</th>" for _, label, _ in _COLUMNS)
    rows = []
    for line in epochs:
        cells = "".join(f"<td>{form.format(line[name])}</td>" for name, _, form in _COLUMNS)
        rows.append(f"<tr>{cells}<td>{'best' if line['epoch'] == best['epoch'] else ''}</td></tr>")
    return f"<table><tr>{head}<th></th></tr>{''.join(rows)}</table>"


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
