"""A plan as a page in one file: what stands in the table, and plots of memory by layer and cost by GPU type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.page import (
    Stack,
    bullets,
    charts,
    document,
    named_bars,
    pairs,
    paragraph,
    section,
    stacked_bars,
    table,
    tiles,
)
from kubesae.plan import words
from kubesae.plan.prices import GB
from kubesae.units import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.plan.report import Engine, Report

_MAIN = ("attention", "mlp", "experts")


def plan_page(report: Report) -> str:
    """Return the page of a plan."""
    model = report.model
    return document(
        f"Plan of {report.name}",
        words.headline(report),
        [
            tiles(_tiles(report)),
            *_remarks(report),
            charts([_layers(report), _gpu(report), *_costs(report), _widths(report)]),
            section(
                "Model",
                paragraph(f"{model.origin}; {model.quantization or model.stored}.", quiet=True),
                table(words.KIND_HEAD, words.kind_rows(report)),
            ),
            section("By layer, in the checkpoint", table(words.LAYER_HEAD, words.layer_rows(report))),
            section("Memory", table(words.MEMORY_HEAD, words.memory_rows(report)), *map(_needs, report.engines)),
            section("Streaming", pairs(words.streaming_rows(report))),
            section("Collection", pairs(words.collection_rows(report))),
            section("Data", pairs(words.data_rows(report))),
            section("Training, each SAE alone", table(words.TRAIN_HEAD, map(words.training_row, report.trainings))),
            section("Training by width", table(words.WIDTH_HEAD, words.width_rows(report))),
            section(
                "Cost",
                paragraph(f"Prices of {report.prices_as_of}: {report.prices_source}.", quiet=True),
                table(words.COST_HEAD, words.cost_rows(report)),
            ),
            section("Collecting on other GPUs", table(words.OFFER_HEAD, map(words.offer_row, report.offers))),
            section("Assumed", table(("name", "value", "what"), words.assumption_rows(report))),
        ],
    )


def _tiles(report: Report) -> Iterator[tuple[str, str]]:
    found, model = report.collection, report.model
    yield words.short(model.parameters), f"parameters, {words.short(model.active_parameters)} of a token"
    yield size(model.loaded_bytes), f"loaded of {size(model.checkpoint_bytes)}"
    yield found.engine or "none fits", "engine"
    if found.engine:
        yield f"{found.tokens_per_second:,.0f}", "tokens a second"
        yield duration(found.seconds), "to collect"
    yield size(report.data.stored_bytes), "in the store"
    if found.engine:
        yield words.dollars(report.on_demand), f"in all; {words.dollars(report.spot)} on spot machines"


def _remarks(report: Report) -> Iterator[str]:
    if report.problems:
        shown = [f"{problem.what} → {problem.change}" for problem in report.problems]
        yield section("What does not fit", bullets(shown))
    if report.warnings:
        yield section("Where the usual guidance is off", bullets(report.warnings))


def _needs(engine: Engine) -> str:
    return paragraph(
        f"{engine.name}: {'; '.join(f'{place}: {text}' for place, text in words.needs_of(engine))}", quiet=True
    )


def _layers(report: Report) -> str:
    stacks = []
    for run in report.model.by_layer:
        of = {kind.kind: kind.checkpoint_bytes / GB for kind in run.kinds}
        ffn = of.get("mlp", 0.0) + of.get("experts", 0.0)
        values = (of.get("attention", 0.0), ffn, run.checkpoint_bytes / GB - ffn - of.get("attention", 0.0))
        if run.first >= 0:
            stacks += [Stack(f"layer {i}", values, not run.loaded) for i in range(run.first, run.last + 1)]
    loaded = report.model.loaded_layers
    note = f"Layers 0 to {loaded - 1} are loaded; those after it, paler, are neither read nor downloaded."
    keys = (("attention", "val"), ("MLP or experts", "train"), ("other", "other"))
    return stacked_bars("Checkpoint by layer, GB", keys, stacks, x_label="layer", note=note)


def _gpu(report: Report) -> str:
    engine = next((one for one in report.engines if one.name == report.collection.engine), report.engines[0])
    bars = [(need.what, need.bytes / GB, "train") for need in engine.gpu.needs]
    bars += [("all of it", engine.gpu.needed / GB, "val"), ("one GPU has", engine.gpu.available / GB, "other")]
    return named_bars("Memory of the fullest GPU, GB", bars, digits=1, note=f"{engine.name.capitalize()} engine.")


def _costs(report: Report) -> Iterator[str]:
    fitting = [offer for offer in report.offers if offer.engine and offer.on_demand]
    if fitting:
        bars = [(f"{offer.gpu}, {offer.hours:.2g} h", offer.on_demand, "train") for offer in fitting]
        missing = [offer.gpu for offer in report.offers if not offer.engine]
        note = f"Does not fit: {', '.join(missing)}." if missing else "On demand; whole machines."
        yield named_bars("Collecting by GPU type, dollars", bars, digits=0, note=note)


def _widths(report: Report) -> str:
    bars = [
        (f"{training.name} {kind}", value / 3600, colour)
        for training in report.widths
        if training.architecture == "relu"
        for kind, value, colour in (
            ("dense", training.dense_seconds, "other"),
            ("sparse", training.compute_seconds, "train"),
        )
    ]
    reading = report.widths[0].reading_seconds / 3600
    note = f"ReLU + L1. Reading the rows takes {reading:,.1f} h whatever the width."
    return named_bars("Training by width, hours", bars, digits=1, note=note)
