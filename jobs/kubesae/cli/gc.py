"""`kubesae gc`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.gc import Garbage

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Duration(click.ParamType[timedelta]):
    """A span of time: a number and one of s, m, h, d."""

    name = "time"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read `90s`, `24h`, `0.5d`."""
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", value)
        if match is None:
            self.fail(f"{value!r} is no time. Write a number and s, m, h or d, as in 24h.", param, ctx)
        return timedelta(**{_UNITS[match[2]]: float(match[1])})


@click.command("gc")
@experiment_options()
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="leave alone what is younger")
@click.option("--dry-run", is_flag=True, help="list what would be removed, and remove nothing")
def command(experiment: Path | None, grace: timedelta, dry_run: bool, **flags: Any) -> None:
    """Remove what killed programs left: tars and moments that no record names, open uploads, temporary files.

    And what an interpretation that is whole does not need: units of other settings, codes that it does not name.

    Nothing younger than the grace time goes, by the store's own clock, and nothing at all while a record cannot be
    read. A part's tars stay while it has no record, or one that is not right. Do not run it while `kubesae repair`
    runs.
    """
    resolved = resolve(experiment, overrides(flags))
    from kubesae.gc import collect_garbage, find_garbage, find_leftovers  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    data, output = open_store(resolved.data), open_store(resolved.output_prefix)
    found = [(data, find_garbage(data, grace)), (output, find_leftovers(output, grace))]
    for _, garbage in found:
        _list(garbage)
    objects = _count(sum(len(garbage.objects) for _, garbage in found), "object")
    uploads = _count(sum(len(garbage.uploads) for _, garbage in found), "open upload")
    count = f"{objects} and {uploads}, {sum(garbage.bytes for _, garbage in found):,} bytes"
    if dry_run:
        say(f"Would remove {count}; nothing was done")
        return
    for store, garbage in found:
        collect_garbage(store, garbage)
    say(f"✓ Removed {count}")


def _list(garbage: Garbage) -> None:
    for key, info in garbage.objects.items():
        say(f"  {key}: {info.size:,} bytes, written {info.modified:%Y-%m-%d %H:%M:%S}")
    for upload in garbage.uploads:
        say(f"  {upload.key}: open upload, {upload.size:,} bytes, begun {upload.started:%Y-%m-%d %H:%M:%S}")
    if garbage.waiting:
        say(f"{len(garbage.waiting)} tars and moments are left: their parts have no record yet, or one to repair")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
