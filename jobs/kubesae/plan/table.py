"""A plan as lines of text for the terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from kubesae.plan import words
from kubesae.units import size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kubesae.plan.report import Report

_NAME = 13


def table_lines(report: Report, width: int = 120) -> Iterator[str]:
    """Yield the lines of a plan, none longer than `width` but for rows of tables."""
    yield f"Plan of {report.name}: {words.headline(report)}"
    yield words.summary(report)
    if report.calibrated:
        yield f"Measured: {report.calibrated}"
    model = report.model
    yield from _table(f"Model: {model.origin}; {_kept(report)}", [words.KIND_HEAD, *words.kind_rows(report)], {0})
    if model.prediction_bytes:
        yield f"  beside it {size(model.prediction_bytes)} of prediction layers, which nothing loads"
    yield from _table("By layer, in the checkpoint", [words.LAYER_HEAD, *words.layer_rows(report)], {0})
    yield from _table("Memory", [words.MEMORY_HEAD, *words.memory_rows(report)], {0, 1, 6})
    for engine in report.engines:
        if engine.fits or not any(one.fits for one in report.engines):
            for place, needs in words.needs_of(engine):
                yield from _wrapped(f"  {engine.name}, {place}: ", needs, width)
    yield from _pairs("Streaming", words.streaming_rows(report), width)
    yield from _pairs("Collection", words.collection_rows(report), width)
    yield from _pairs("Data", words.data_rows(report), width)
    own = [words.TRAIN_HEAD, *map(words.training_row, report.trainings)]
    yield from _table("Training, each SAE alone", own, {0, 1})
    yield from _table("Training by width", [words.WIDTH_HEAD, *words.width_rows(report)], {0})
    bill = f"Cost, prices of {report.prices_as_of} ({report.prices_source})"
    yield from _table(bill, [words.COST_HEAD, *words.cost_rows(report)], {0, 3})
    yield from _table("Collecting on other GPUs", [words.OFFER_HEAD, *map(words.offer_row, report.offers)], {0, 1, 3})
    yield from _remarks(report, width)


def _kept(report: Report) -> str:
    return report.model.quantization or report.model.stored


def _remarks(report: Report, width: int) -> Iterator[str]:
    if report.problems:
        yield ""
        yield "What does not fit"
        for problem in report.problems:
            yield from _wrapped(f"  {'✗' if problem.blocks else '!'} ", problem.what, width)
            yield from _wrapped("    → ", problem.change, width)
    if report.warnings:
        yield ""
        yield "Where the usual guidance is off"
        for warning in report.warnings:
            yield from _wrapped("  ! ", warning, width)
    yield ""
    values = ", ".join(f"{name} {value}" for name, value, _ in words.assumption_rows(report))
    yield from _wrapped(
        "Assumed: ", f"{values}. Each can be set (--set NAME=VALUE); --assumptions says what they are.", width
    )


def _table(title: str, rows: Sequence[Sequence[str]], left: set[int]) -> Iterator[str]:
    yield ""
    yield title
    for line in words.aligned(rows, frozenset(left)):
        yield f"  {line}"


def _pairs(title: str, rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    yield ""
    yield title
    for name, text in rows:
        yield from _wrapped(f"  {name:<{_NAME}} ", text, width)


def _wrapped(start: str, text: str, width: int) -> list[str]:
    indent = " " * len(start)
    return textwrap.wrap(
        text,
        max(60, width),
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
