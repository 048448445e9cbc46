"""The reference page of the command line, made from the commands themselves: arguments and every flag of each."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from typing import TYPE_CHECKING

import click

from kubesae.cli.main import module_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def commands_page(names: Iterable[str]) -> str:
    """Return the page of the commands `names` as Markdown."""
    return "\n".join(_lines(names)) + "\n"


def _lines(names: Iterable[str]) -> Iterator[str]:
    yield "# The commands"
    yield ""
    yield "Made by `kubesae config --commands`; a test keeps it true."
    yield "EXPERIMENT is the YAML file of an experiment, or `$KUBESAE_EXPERIMENT`; [experiment.md](experiment.md) has"
    yield "its fields. Instead of a file, `--data` may name a prefix that holds one. Flags overrule the file; `_` in"
    yield "them is read as `-`. `kubesae --log-format json COMMAND ...` prints lines for collectors of logs."
    for name in names:
        command: click.Command = importlib.import_module(module_of(name)).command
        context = click.Context(command, info_name=f"kubesae {name}")
        yield ""
        yield f"## `{name}`"
        yield ""
        yield "```"
        yield context.command_path + " " + " ".join(command.collect_usage_pieces(context))
        yield "```"
        yield from _help(command)
        options = [param for param in command.params if isinstance(param, click.Option)]
        rows = [record for option in options if (record := option.get_help_record(context))]
        if rows:
            yield ""
            yield "| flag | what it is |"
            yield "|---|---|"
            yield from (f"| `{_cell(flag)}` | {_cell(text)} |" for flag, text in rows)


def _help(command: click.Command) -> Iterator[str]:
    """Yield the help's paragraphs; as code those whose lines click does not join: indented, or after a backspace."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield ""
        if paragraph.startswith(("\b", " ")):
            yield from ("```", textwrap.dedent(paragraph.removeprefix("\b\n")), "```")
        else:
            yield " ".join(paragraph.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
