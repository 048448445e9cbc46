"""Writes docs/planning.md: what `kubesae plan` says of well-known models, and the fields of what it prints as JSON.

python tools/planning_page.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from kubesae.experiment import Section, load_experiment
from kubesae.plan import Assumptions, Report, load_prices, plan_work, table_lines, work_of
from kubesae.plan.known import known_models
from kubesae.plan.words import dollars, short
from kubesae.units import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "planning.md"
REFERENCE = "examples/02-collection/experiment.yaml"
OTHERS = ("deepseek-v3", "llama-3-70b", "qwen3-32b", "mixtral-8x7b", "gemma-2-9b", "gpt2")
INTRO = """\
# Planning

<!-- Written by tools/planning_page.py; a test checks that it is current. -->

`kubesae plan experiment.yaml` says before a GPU is paid for whether a model fits, which engine runs it, how long
collecting and training take, what is stored and what it costs. It needs the model's `config.json` alone: of a local
folder, of a list of well-known models that comes with kubesae, or of the hub. transformers builds the model without
memory for its weights, and kubesae counts its tensors by layer and kind; all else is arithmetic.

```
kubesae plan experiment.yaml                                  # a table; exit code 2 where something does not fit
kubesae plan experiment.yaml --gpu b200 --gpus-per-slot 4     # other machines; several --set NAME=VALUE too
kubesae plan experiment.yaml --page plan.html                 # memory by layer, cost by GPU type, as plots
kubesae plan experiment.yaml --json                           # one object: its fields are below
kubesae plan experiment.yaml --calibrate --gpu here           # measure this machine for a minute, then plan for it
```

A plan is as good as what it assumes, and nothing of it was measured on a GPU so far. `make bench NAME=plan` compares a
plan of collecting the demo with the clock, on a machine without one. Set what you know better
([assumptions](#assumptions)), and run the pilot: it tells the real speed.

**Engines.** `resident` keeps the weights on the GPUs of a slot: all on each where one holds them, else spread over
them, so that these work one after the other. `streamed` keeps a block of hidden states instead and passes it through
one layer at a time, while the next layer loads. That costs nothing once a block computes at least as long as a layer
loads: the break-even, for one GPU and for a slot whose GPUs share one reading of the weights.

**Prices** are list prices of AWS, each with date and source, in `jobs/kubesae/plan/prices.yaml`. Copy that file, put in
what you pay, and give it with `--prices FILE`.
"""


def page() -> str:
    """Return the page."""
    prices = load_prices()
    files = [REFERENCE, *(f"examples/plans/{name}.yaml" for name in OTHERS)]
    reports = {file: plan_work(work_of(load_experiment(ROOT / file)), prices, Assumptions()) for file in files}
    lines = [INTRO, *_overview(reports), *_published(reports)]
    lines += ["## The reference experiment", *_printed(REFERENCE, reports[REFERENCE]), "## Others"]
    for file in files[1:]:
        lines += [f"### {reports[file].model.name}", *_printed(file, reports[file])]
    lines += ["## Assumptions", *_fields(Assumptions, defaults=True), *_json()]
    return "\n".join(lines) + "\n"


def _overview(reports: dict[str, Report]) -> Iterator[str]:
    yield "## At a glance"
    yield "A billion tokens of one layer and an SAE eight times as wide, on four pairs of H100.\n"
    yield "| model | parameters | loaded | engine | tokens/s | collect | stored | in all | on spot machines |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for report in reports.values():
        model, found = report.model, report.collection
        layers = f"layers 0-{model.loaded_layers - 1}: {size(model.loaded_bytes)} of {size(model.checkpoint_bytes)}"
        cells = (model.name, short(model.parameters), layers, found.engine or "none", f"{found.tokens_per_second:,.0f}")
        costs = (
            duration(found.seconds),
            size(report.data.stored_bytes),
            dollars(report.on_demand),
            dollars(report.spot),
        )
        yield f"| {' | '.join((*cells, *costs))} |"
    yield ""


def _published(reports: dict[str, Report]) -> Iterator[str]:
    yield "## Counted and published"
    yield "| model | parameters | of a token | published |"
    yield "|---|---|---|---|"
    for report in reports.values():
        model = report.model
        known = next(known for known in known_models().values() if model.name in known.ids)
        counts = f"{model.parameters:,} | {model.active_parameters:,}"
        yield f"| [{model.name}]({known.url}) | {counts} | {known.published['parameters_source']} |"
    yield ""


def _printed(file: str, report: Report) -> Iterator[str]:
    yield "```"
    yield f"$ kubesae plan {file}"
    yield from table_lines(report)
    yield "```\n"


def _fields(section: type[Section], *, defaults: bool = False) -> Iterator[str]:
    yield f"| field |{' default |' if defaults else ''} what |"
    yield f"|---|{'---|' if defaults else ''}---|"
    for name, info in section.model_fields.items():
        default = f" {info.default} |" if defaults else ""
        yield f"| `{name}` |{default} {info.description} |"
    yield ""


def _json() -> Iterator[str]:
    yield "## JSON"
    yield "`kubesae plan --json` prints one object. Bytes, seconds, FLOP and dollars are plain numbers. A field keeps"
    yield "its meaning as long as `format` is the same; new ones may come.\n"
    yield from _fields(Report)
    for section in _sections(Report, []):
        yield f"### {section.__name__}"
        yield from _fields(section)


def _sections(section: type[Section], found: list[type[Section]]) -> list[type[Section]]:
    """Return the sections that the fields of one hold, each once, in the order in which they are met."""
    for info in section.model_fields.values():
        for kind in _types(info.annotation):
            if kind not in found and kind is not Assumptions:
                found.append(kind)
                _sections(kind, found)
    return found


def _types(annotation: Any) -> Iterator[type[Section]]:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            yield kind


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {PAGE.write_text(page(), encoding='utf-8'):,} characters\n")
