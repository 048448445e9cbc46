"""`kubesae monitor`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kubesae.monitor import Row, Snapshot


@click.command("monitor")
@experiment_options("chunk")
@click.option("--watch", is_flag=True, help="look again and again, until every shard is collected")
@click.option(
    "--interval", type=click.FloatRange(0.1), default=5.0, show_default=True, help="seconds between looks of --watch"
)
@click.option("--json", "as_json", is_flag=True, help="print a JSON object for each look")
def command(experiment: Path | None, watch: bool, interval: float, as_json: bool, **flags: Any) -> None:
    """Show how far a run is, wherever it runs: tokens, chunk, rate, time left, bytes, stragglers, later phases.

    Everything is read from the store, by a few listings; nothing is written. A shard is SILENT when it has not
    committed for five times its median interval between commits (and for a minute at least), SLOW when its rate is less
    than half the median of the shards that are running (three at least). Ages compare the store's clock with this
    machine's: `kubesae doctor` shows how far they are apart.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.monitor import observe  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    store, output = open_store(resolved.data), open_store(resolved.output_prefix)

    def look() -> Snapshot:
        return observe(store, output, resolved)

    if not watch:
        _show(look(), as_json=as_json)
        return
    try:
        if as_json or not sys.stdout.isatty():
            _watch_lines(look, interval, as_json=as_json)
        else:
            _watch_table(look, interval)
    except KeyboardInterrupt:  # how a person ends it
        return


def _show(snapshot: Snapshot, *, as_json: bool) -> None:
    from kubesae.cli.shard_table import stacked  # noqa: PLC0415 - imports rich
    from kubesae.monitor import snapshot_rows  # noqa: PLC0415

    if as_json:
        click.echo(snapshot.model_dump_json())
        return
    for row in snapshot_rows(snapshot):
        for line in stacked(row):
            say(line)


def _watch_lines(look: Callable[[], Snapshot], interval: float, *, as_json: bool) -> None:
    while True:
        snapshot = look()
        _show(snapshot, as_json=as_json)
        if snapshot.collection.complete:
            return
        time.sleep(interval)
        if not as_json:
            say("")


def _watch_table(look: Callable[[], Snapshot], interval: float) -> None:
    from kubesae.cli.shard_table import ShardTable  # noqa: PLC0415 - imports rich
    from kubesae.monitor import snapshot_rows  # noqa: PLC0415

    complete = False

    def rows() -> Iterator[Row]:
        nonlocal complete
        snapshot = look()
        complete = snapshot.collection.complete
        return snapshot_rows(snapshot)

    with ShardTable(rows) as table:
        while not complete:
            time.sleep(table.pause(interval))
            table.refresh()
