"""`kubesae verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve
from kubesae.errors import EXIT_USER

if TYPE_CHECKING:
    from pathlib import Path


@click.command("verify")
@experiment_options("chunk", "pilot.tokens", "pilot.chunk")
@click.option(
    "--mode",
    type=click.Choice(["ledger", "full"]),
    help="ledger: records and object sizes; full: every byte (default: verify.mode of the experiment)",
)
@click.option("--scope", type=click.Choice(["pilot", "all"]), default="all", show_default=True, help="what to check")
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
def command(experiment: Path | None, mode: Any, scope: Any, as_json: bool, **flags: Any) -> int:
    """Check collected activations against plan and records.

    Writes verify/SCOPE.json; --scope all also writes the index that readers start from. Exit code 0: all checks passed;
    2: something is wrong, named line by line.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.ledger import require_identity  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415
    from kubesae.verify import report_lines, verify  # noqa: PLC0415

    store = open_store(resolved.data)
    report = verify(store, scope, mode or resolved.verify.mode, resolved.pilot.tokens)
    if as_json:
        click.echo(report.to_json().decode())
    else:
        for line in report_lines(report, require_identity(store), resolved):
            say(line)
    return 0 if report.passed else EXIT_USER
