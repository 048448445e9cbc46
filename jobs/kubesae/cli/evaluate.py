"""`kubesae evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import choose_sae, experiment_options, overrides, resolve

if TYPE_CHECKING:
    from pathlib import Path


@click.command("evaluate")
@experiment_options("model")
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one there is)")
@click.option(
    "--ce-contexts",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    help="validation contexts on which the model is run with the SAE spliced in; 0: without the model",
)
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
def command(experiment: Path | None, sae_name: str | None, ce_contexts: int, as_json: bool, **flags: Any) -> None:
    """Measure an SAE on the validation blocks: reconstructions, features, and what the model itself loses.

    Prints FVU, shrinkage, the spread of L0, dead, dense and alike features, CE loss and KL recovered. Writes
    sae/NAME/evaluation.html, with plots, and sae/NAME/evaluation.json below the output prefix.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.evaluate import evaluate, report_lines  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    output = open_store(resolved.output_prefix)
    report = evaluate(resolved, open_store(resolved.data), output, choose_sae(resolved, sae_name), ce_contexts)
    if as_json:
        click.echo(report.to_json().decode())
        return
    for line in report_lines(report):
        say(line)
