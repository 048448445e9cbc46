"""`kubesae collect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, metrics_option, overrides, resolve, section_fields
from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@click.command("collect")
@experiment_options("layers", "chunk", *section_fields("collect"))
@click.option("--index", type=click.IntRange(0), envvar="JOB_COMPLETION_INDEX", help="number of this worker, from 0")
@click.option("--of", type=click.IntRange(1), help="number of workers (default: a worker for each shard)")
@click.option("--all", "everything", is_flag=True, help="collect every shard from here, with --workers processes")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="processes of --all")
@metrics_option
def command(
    experiment: Path | None,
    index: int | None,
    of: int | None,
    everything: bool,
    workers: int,
    metrics_port: int | None,
    **flags: Any,
) -> None:
    """Run the model over the prepared tokens and stream activations to the store.

    Worker I of N collects shards I, I+N, I+2N, ... What is committed already is left alone: started again after a
    kill, a worker goes on from its last committed part.
    """
    given = overrides(flags)
    resolved = resolve(experiment, given)
    if everything == (index is not None):
        raise ConfigError("Say what to collect: --index I --of N for one worker's shards, or --all.")
    if workers > 1 and metrics_port:
        raise ConfigError(
            "--metrics-port is about one process, but there are several --workers: leave one of them out."
        )
    from kubesae.cli.metered_events import events  # noqa: PLC0415 - keeps --help fast
    from kubesae.cli.metrics import CollectMetrics, serving  # noqa: PLC0415
    from kubesae.cli.workers import live, run_workers  # noqa: PLC0415
    from kubesae.collect import Share, collect  # noqa: PLC0415
    from kubesae.ledger import share_of, write_run  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    store = open_store(resolved.data, deadline=resolved.collect.deadline)
    store.probe()
    write_run(store, resolved)
    if everything and workers > 1:
        run_workers(resolved, store, workers)
        return
    shards = share_of(resolved.num_shards, index or 0, 1 if everything else of or resolved.num_shards)
    with (
        serving(CollectMetrics, resolved.name, metrics_port) as metrics,
        live(store, resolved, tuple(shards)) as line,
    ):
        collect(resolved, store, Share(tuple(shards)), events(line, resolved.chunk, metrics))
    if not shards:
        say(f"There is no shard for worker {index} of {of}: the experiment has {resolved.num_shards}.")
