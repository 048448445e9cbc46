"""`kubesae pilot`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, metrics_option, overrides, resolve, section_fields
from kubesae.errors import EXIT_USER

if TYPE_CHECKING:
    from pathlib import Path


@click.command("pilot")
@experiment_options("layers", *section_fields("pilot"), *section_fields("collect"))
@metrics_option
def command(experiment: Path | None, metrics_port: int | None, **flags: Any) -> int:
    """Collect the first tokens of shard 0 and verify every byte of them.

    The pilot lies where the full collection will go on from it: nothing is collected twice.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.cli.metered_events import events  # noqa: PLC0415 - keeps --help fast
    from kubesae.cli.metrics import PilotMetrics, serving  # noqa: PLC0415
    from kubesae.collect import Share, collect  # noqa: PLC0415
    from kubesae.ledger import Plan, gate_is_open, read_report, require_identity, write_run  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415
    from kubesae.verify import report_lines, verify  # noqa: PLC0415

    store = open_store(resolved.data, deadline=resolved.collect.deadline)
    store.probe()
    write_run(store, resolved)
    with serving(PilotMetrics, resolved.name, metrics_port) as metrics:
        collect(resolved, store, Share((0,), resolved.pilot.tokens), events(say, resolved.pilot.chunk, metrics))
    identity = require_identity(store)
    report = read_report(store, "pilot")
    current = gate_is_open(store, Plan.of(identity), identity.sha256, "pilot", resolved.pilot.tokens, "full")
    if report is None or not current:
        report = verify(store, "pilot", "full", resolved.pilot.tokens, workers=len(os.sched_getaffinity(0)))
    for line in report_lines(report, identity, resolved):
        say(line)
    return 0 if report.passed else EXIT_USER
