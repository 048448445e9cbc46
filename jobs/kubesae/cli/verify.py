"""`kubesae verify`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import check_share, experiment_options, overrides, resolve, share_options
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
@click.option("--workers", type=click.IntRange(1), help="threads (default: the cores)")
@share_options("the parts")
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
def command(
    experiment: Path | None,
    mode: Any,
    scope: Any,
    workers: int | None,
    index: int | None,
    of: int | None,
    as_json: bool,
    **flags: Any,
) -> int:
    """Check collected activations against plan and records.

    Writes verify/SCOPE.json; --scope all also writes the index that readers start from. Exit code 0: all checks passed;
    2: something is wrong, named line by line. With --index I --of N it checks parts I, I+N, I+2N, ...; the report is
    made by the worker that finds all shares there.
    """
    resolved = resolve(experiment, overrides(flags))
    shared = of is not None
    index, of = check_share(index, of)
    from kubesae.ledger import require_identity  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415
    from kubesae.verify import report_lines, share_line, verify, verify_share  # noqa: PLC0415

    store = open_store(resolved.data)
    mode = mode or resolved.verify.mode
    workers = workers or len(os.sched_getaffinity(0))
    if not shared:
        report = verify(store, scope, mode, resolved.pilot.tokens, workers=workers)
    else:
        share = verify_share(store, scope, mode, resolved.pilot.tokens, index, of, workers=workers)
        say(share_line(share, index, of))
        if share.verification is None:
            return EXIT_USER if share.findings else 0
        report = share.verification.report
    if as_json:
        click.echo(report.to_json().decode())
    else:
        for line in report_lines(report, require_identity(store), resolved):
            say(line)
    return 0 if report.passed else EXIT_USER
