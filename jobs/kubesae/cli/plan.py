"""`kubesae plan`."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve
from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from kubesae.experiment import Experiment
    from kubesae.plan import Calibration, Report

_FILE = click.Path(path_type=Path, dir_okay=False)
_FIELDS = ("model", "layers", "tokens", "num_shards", "context", "contexts_per_part", "sae.0.expansion", "sae.0.d_sae")


@click.command("plan")
@experiment_options(*_FIELDS)
@click.option("--gpu", default="h100", show_default=True, help="GPU type of the price file, or `here`: this machine")
@click.option("--gpus-per-slot", type=click.IntRange(min=1), help="GPUs of a slot  [default: 2]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "resident", "streamed"]),
    default="auto",
    show_default=True,
    help="engine to plan with; auto: resident where it fits and streaming is not much faster",
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="set an assumption; several times")
@click.option("--assumptions", "list_assumptions", is_flag=True, help="list the assumptions instead")
@click.option("--prices", type=_FILE, help="price file  [default: the one of this package]")
@click.option("--calibrate", is_flag=True, help="measure this machine first, in about a minute, and keep what is found")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="--calibrate: processes that collect at a time")
@click.option("--calibration", type=_FILE, help="file of what was measured  [default: in kubesae's cache]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object (docs/planning.md)")
@click.option("--page", type=_FILE, help="write a page with plots to this file too")
def command(experiment: Path | None, settings: tuple[str, ...], **options: Any) -> int:
    """Say whether it fits, how long it takes and what it costs, before a GPU is paid for.

    From the model's config alone: no weights are read or fetched. Bytes, hours and dollars of collecting, storing and
    training; both engines; what does not fit, and the smallest change that makes it fit. Exit code 2: something does
    not fit, so the experiment cannot run as it is planned.
    """
    given = overrides(options)
    from kubesae.plan import assumptions_of, load_prices, plan_page, plan_work, table_lines, work_of  # noqa: PLC0415

    assumptions = assumptions_of(settings)
    if options["list_assumptions"]:
        _list(assumptions)
        return 0
    resolved = None if experiment is None and "data" not in given else resolve(experiment, given)
    if resolved is None and not options["calibrate"]:
        resolved = resolve(experiment, given)  # says what is missing
    prices = load_prices(options["prices"])
    calibration = _calibration(resolved, options)
    if resolved is None:
        return 0
    report = plan_work(
        work_of(resolved),
        prices,
        assumptions,
        gpu=options["gpu"],
        gpus=options["gpus_per_slot"],
        engine=options["engine"],
        calibration=calibration,
    )
    if options["page"] is not None:
        _write(options["page"], plan_page(report).encode())
    if options["as_json"]:
        click.echo(json.dumps(report.model_dump(mode="json"), ensure_ascii=False))
    else:
        for line in table_lines(report, shutil.get_terminal_size((120, 24)).columns):
            say(line)
    return _exit_code(report)


def _exit_code(report: Report) -> int:
    return 2 if any(problem.blocks for problem in report.problems) else 0


def _calibration(experiment: Experiment | None, options: dict[str, Any]) -> Calibration | None:
    """Measure where that is asked for; else return what was measured before, if the plan is for this machine."""
    from kubesae.model.smollm2 import cache_folder  # noqa: PLC0415
    from kubesae.plan import FILE, HERE, load_calibration, work_of  # noqa: PLC0415

    path: Path = options["calibration"] or cache_folder() / FILE
    if options["calibrate"]:
        from kubesae.plan.known import find_config  # noqa: PLC0415
        from kubesae.plan.measure import calibrate  # noqa: PLC0415

        work = None if experiment is None else work_of(experiment)
        source = None if experiment is None else find_config(experiment)
        path.parent.mkdir(parents=True, exist_ok=True)
        tell = partial(click.echo, err=options["as_json"])  # standard output is the object's alone
        found = calibrate(work, source, path.parent, options["workers"], lambda line: tell(f"Measured {line}"))
        _write(path, found.to_json())
        tell(f"Written to {path}; `kubesae plan --gpu here` takes it.\n")
        return found
    if options["gpu"] != HERE and options["calibration"] is None:
        return None
    return load_calibration(path)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}. Give a path in a folder that is there.") from error


def _list(assumptions: Any) -> None:
    for name, info in type(assumptions).model_fields.items():
        say(f"{name} = {getattr(assumptions, name)}")
        say(f"    {info.description}")
