"""`kubesae trace`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve

if TYPE_CHECKING:
    from pathlib import Path


@click.command("trace")
@experiment_options("interpret.context_tokens")
@click.option("--row", type=int, required=True, help="global row: that of an activation, in every layer the same")
@click.option("--layer", type=int, help="captured layer, for flags, norm and the tar  [default: the first]")
@click.option("--norm", is_flag=True, help="read the activation too, for its norm")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def command(experiment: Path | None, row: int, layer: int | None, norm: bool, as_json: bool, **flags: Any) -> None:
    """Show the source text around a row, its document, and where its activation lies.

    Two small reads, whatever the size of the data. A row that is not collected yet is shown from the prepared tokens.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.store import open_store  # noqa: PLC0415 - keeps --help fast
    from kubesae.trace import trace, trace_lines  # noqa: PLC0415

    traced = trace(open_store(resolved.data), resolved, row, layer=layer, norm=norm)
    if as_json:
        click.echo(json.dumps(traced.model_dump(mode="json"), ensure_ascii=False))
        return
    for line in trace_lines(traced):
        say(line)
