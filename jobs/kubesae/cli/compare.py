"""`kubesae compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.compare import Comparison
    from kubesae.store import Store


@click.command("compare")
@experiment_options()
@click.option("--json", "as_json", is_flag=True, help="print the comparison as JSON")
def command(experiment: Path | None, as_json: bool, **flags: Any) -> None:
    """Set all trained SAEs side by side: sparsity, reconstruction, and which of them no other one beats.

    Writes sae/sweep.html, with a plot of FVU by L0, and sae/sweep.json below the output prefix. Imported SAEs are
    named, not compared. Both files are also made anew whenever a training or an evaluation ends.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.compare import compare  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    output = open_store(resolved.output_prefix)
    comparison = compare(output)
    if as_json:
        click.echo(comparison.to_json().decode())
        return
    show(output, comparison)


def show(output: Store, comparison: Comparison) -> None:
    """Print a comparison, and where its page is."""
    from kubesae.compare import comparison_lines  # noqa: PLC0415 - keeps --help fast
    from kubesae.ledger import keys  # noqa: PLC0415

    for line in comparison_lines(comparison):
        say(line)
    say(f"Sweep: {output.url_of(keys.SWEEP_PAGE)}")
