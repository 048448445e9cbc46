"""`kubesae ledger`."""

from __future__ import annotations

import csv
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import experiment_options, overrides, resolve
from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from kubesae.account import Account, Count

SHOWN = 20
SECONDS_BETWEEN_LINES = 10.0


@click.command("ledger")
@experiment_options()
@click.option("--documents", is_flag=True, help=f"count by document too: the {SHOWN} largest; --csv and --json: all")
@click.option("--flags", "read", is_flag=True, help="read the flags of every stored row, to count them by corpus too")
@click.option("--layer", type=int, help="layer whose flags --flags reads  [default: the first]")
@click.option("--csv", "as_csv", is_flag=True, help="print the corpora, or with --documents the documents, as CSV")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def command(
    experiment: Path | None,
    documents: bool,
    read: bool,
    layer: int | None,
    as_csv: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Account for every token of the plan: stored, flagged or missing, by corpus, document and shard.

    Flags are counted by the commit records for each layer; of which corpus the flagged rows are only --flags can say,
    which reads one byte a row.
    """
    if as_csv and as_json:
        raise ConfigError("--csv and --json are two ways to print one thing: give one of them.")
    if layer is not None and not read:
        raise ConfigError("--layer says whose flags are read: give --flags too.")
    resolved = resolve(experiment, overrides(flags))
    from kubesae.account import account  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    first = resolved.layers[0] if layer is None else layer
    found = account(
        open_store(resolved.data),
        resolved,
        flags_layer=first if read else None,
        documents=documents,
        progress=_progress(quiet=as_json or as_csv),
    )
    if as_json:
        click.echo(found.model_dump_json())
    elif as_csv:
        _print_csv(found.corpora if found.documents is None else found.documents)
    else:
        _print(found)


def _print(found: Account) -> None:
    _table("Corpus", [(_name(count.corpus), count) for count in found.corpora], found.total)
    behind = [count for count in found.shards if count.missing]
    if behind:
        say("")
        _table("Not complete", [(f"shard {count.shard}", count) for count in behind[:SHOWN]])
        _more(len(behind), "shards", "--json")
    if found.documents is not None:
        say("")
        _table(
            "Document",
            [
                (f"{_name(count.corpus)}: {_name(count.document, 'BOS of its contexts')}", count)
                for count in found.documents[:SHOWN]
            ],
        )
        _more(len(found.documents), "documents", "--csv")
    if found.flags:
        say("\nFlags of the stored rows (a row may have several):")
    for layer in found.flags:
        say(
            f"  layer {layer.layer}: {layer.first_position:,} first position, {layer.special_token:,} special token, "
            f"{layer.norm_outlier:,} norm outlier"
        )


def _name(name: str | None, otherwise: str = "(none)") -> str:
    from kubesae.corpus import visible  # noqa: PLC0415 - keeps --help fast

    return otherwise if name is None else visible(name)


def _more(count: int, what: str, flag: str) -> None:
    if count > SHOWN:
        say(f"... and {count - SHOWN:,} more {what}: {flag} prints all")


def _table(heading: str, rows: Iterable[tuple[str, Count]], total: Count | None = None) -> None:
    """Print counts below each other, numbers to the right; `flagged` only where it was counted."""
    lines = [*rows, *([("Total", total)] if total else [])]
    counted = any(count.flagged is not None for _, count in lines)
    headings = ["Planned", "Stored", *(["of it flagged"] if counted else []), "Missing"]
    cells = [
        [count.planned, count.stored, *([count.flagged or 0] if counted else []), count.missing] for _, count in lines
    ]
    text = [
        [heading, *headings],
        *([name, *(f"{n:,}" for n in row)] for (name, _), row in zip(lines, cells, strict=True)),
    ]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))]
    for row in text:
        say(
            "  ".join(
                [
                    f"{row[0]:<{widths[0]}}",
                    *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
                ]
            )
        )


def _print_csv(counts: Sequence[Count]) -> None:
    names = [name for name in ("corpus", "document", "documents") if name in type(counts[0]).model_fields]
    fields = [*names, "planned", "stored", "flagged", "missing"]
    writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(count.model_dump(include=set(fields)) for count in counts)


def _progress(*, quiet: bool) -> Callable[[int, int], None]:
    """Return what says at times how far the reading is; nothing where the output is for a program."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if not quiet and time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"Read {done:,} / {total:,} parts ({done / total:.1%})")

    return progress
