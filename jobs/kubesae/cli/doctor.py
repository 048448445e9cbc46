"""`kubesae doctor`."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubesae.doctor import Check

_SIGNS = {"ok": "✓", "warning": "!", "failed": "✗"}
_NAME = 16


@click.command("doctor")
@experiment_options("model", "layers")
@click.option("--gpus", type=click.IntRange(min=1), help="fail unless torch sees this many GPUs")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def command(experiment: Path | None, gpus: int | None, as_json: bool, **flags: Any) -> int:
    """Look at everything a run will need: machine, libraries, store, model, corpora.

    Without EXPERIMENT the machine alone, and the store at --data if given. Changes nothing but for one probe object in
    the store, which it deletes. Exit code 2: something is to be mended, each with what to do; 1: a fault, such as a
    store that is down; 0: neither.
    """
    given = overrides(flags)
    resolved = None if experiment is None else resolve(experiment, given)
    from kubesae.doctor import examine, exit_code  # noqa: PLC0415 - keeps --help fast

    checks = []
    for check in examine(resolved, given.get("data"), gpus):
        checks.append(check)
        if not as_json:
            for line in _lines(check):
                say(line)
    code = exit_code(checks)
    if as_json:
        click.echo(json.dumps({"exit_code": code, "checks": [check.model_dump() for check in checks]}))
    else:
        say(_summary(checks))
    return code


def _lines(check: Check) -> Iterator[str]:
    """One check as it fits the terminal: what was found beside its name, and below it what to do."""
    first = f"{_SIGNS[check.status]} {check.name:<{_NAME}} "
    room = max(40, shutil.get_terminal_size().columns)
    indent = " " * (_NAME + 3)
    for text, start in ((check.found, first), (check.advice, f"{indent}→ ")):
        if text:
            yield from textwrap.wrap(
                text,
                room,
                initial_indent=start,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )


def _summary(checks: list[Check]) -> str:
    count = {status: sum(check.status == status for check in checks) for status in _SIGNS}
    warnings = f", {count['warning']} with a warning" if count["warning"] else ""
    if count["failed"]:
        return f"✗ {count['failed']} of {len(checks)} checks failed{warnings}."
    return f"✓ {len(checks)} checks passed{warnings}."
