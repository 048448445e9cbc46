"""`kubesae repair`."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve, section_fields
from kubesae.errors import EXIT_USER

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.collect import Work
    from kubesae.experiment import Experiment
    from kubesae.store import Store

ROUNDS = 3
"""mending tokens can bring more to light; what three rounds do not mend stays in the report"""


@click.command("repair")
@experiment_options("chunk", *section_fields("collect"))
@click.option(
    "--mode",
    type=click.Choice(["ledger", "full"]),
    default="full",
    show_default=True,
    help="how to look for damage: full reads every byte",
)
@click.option("--workers", type=click.IntRange(1), help="threads that look for damage (default: the cores)")
@click.option(
    "--new-class", is_flag=True, help="collect in this machine's numerics class what its own cannot be had for"
)
@click.option("--dry-run", is_flag=True, help="list what would be done, and do nothing")
def command(
    experiment: Path | None, mode: Any, workers: int | None, new_class: bool, dry_run: bool, **flags: Any
) -> int:
    """Verify, and make again what is damaged, to the bytes that there were.

    A damaged part is collected again in the numerics class (engine, device, threads, batch, library versions) that its
    record or its neighbours name, and compared with what is known of it before anything is replaced. Records that were
    wrong are kept in activations/quarantine/. Needs the model; of tokens, the stored segments or the sources.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.collect import plan_work  # noqa: PLC0415 - keeps --help fast
    from kubesae.ledger import require_identity  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415
    from kubesae.verify import examine, report_lines  # noqa: PLC0415

    store = open_store(resolved.data, deadline=resolved.collect.deadline)
    store.probe()
    threads, done = workers or len(os.sched_getaffinity(0)), 0
    for _ in range(ROUNDS):
        seen = examine(store, "all", mode, resolved.pilot.tokens, workers=threads)
        work = plan_work(store, seen.findings)
        if not work.count or dry_run:
            break
        _mend(resolved, store, work, new_class=new_class)
        done += work.count
    if dry_run:
        _list(work)
    elif work.count or not (seen.report.passed or work.uncollected):
        for line in report_lines(seen.report, require_identity(store), resolved):
            say(line)
        return EXIT_USER
    else:
        every = "every collected part" if work.uncollected else "every part"
        say(f"✓ {done} repaired, and {every} verifies (mode {mode})" if done else "✓ Nothing to repair")
    for shard, count in Counter(suspect.shard for suspect in work.uncollected).items():
        parts = "1 part is" if count == 1 else f"{count:,} parts are"
        say(f"Shard {shard}: {parts} not collected yet; `kubesae collect` goes on")
    return 0


def _mend(experiment: Experiment, store: Store, work: Work, *, new_class: bool) -> None:
    from kubesae.collect import repair  # noqa: PLC0415 - keeps --help fast
    from kubesae.prepare import restore_tokens  # noqa: PLC0415

    repair(
        experiment,
        store,
        work,
        lambda files: restore_tokens(experiment, store, files),
        new_class=new_class,
        say=say,
    )


def _list(work: Work) -> None:
    for key in work.tokens:
        say(f"{key}: would be made again")
    for suspect in work.moments:
        say(f"{suspect.name}: would be taken again from its tars")
    for suspect in work.foreign:
        say(f"{suspect.name}: the record would be set aside")
    for suspect in work.parts:
        say(f"{suspect.name}: would be collected again")
    for key in work.derived:
        say(f"{key}: would be written anew")
    say(f"{work.count} to repair; nothing was done" if work.count else "✓ Nothing to repair")
