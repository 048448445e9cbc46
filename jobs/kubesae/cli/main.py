"""The command line: `kubesae COMMAND`. Each command is a file of this folder, imported when it is called for.

kubesae --help
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli import console
from kubesae.errors import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER, Interrupted, KubesaeError

if TYPE_CHECKING:
    from types import FrameType

COMMANDS = {
    "prepare": "Tokenise and pack the corpora, once, before any model runs.",
    "pilot": "Collect the first tokens of shard 0 and verify every byte of them.",
    "collect": "Run the model and stream activations to the store.",
    "verify": "Check collected activations against plan and records.",
    "train": "Train a sparse autoencoder on collected activations.",
    "evaluate": "Measure an SAE: FVU, L0, dead features, CE loss recovered.",
    "interpret": "Feature statistics and top activating contexts.",
    "demo": "Run the whole pipeline on a small real model and real text.",
    "fixture": "Write a valid synthetic experiment, without a model.",
    "config": "Check an experiment file and print it with all defaults.",
}


class LazyGroup(click.Group):
    """Loads a command's module only when that command is called, so that `--help` answers at once."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Commands in the order of a run."""
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"kubesae.cli.{name}").command
        return command

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "help_option_names": ["-h", "--help"],
        "max_content_width": 120,
    },
)
@click.version_option(package_name="kubesae", prog_name="kubesae")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", envvar="KUBESAE_LOG_FORMAT", help="log lines"
)
def group(log_format: str) -> None:
    """Turn a language model and a corpus into sparse-autoencoder features that people can read.

    Every command takes an experiment file, and the fields it is about as flags too. Exit codes: 0 done; 2 your input
    cannot work as it is; 75 interrupted, start again to go on; anything else is a fault, and trying again may help.
    """
    if log_format == "json":
        console.use_json()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with a documented code; no traceback for a user's mistake."""
    signal.signal(signal.SIGTERM, _interrupt)
    logger = logging.getLogger("kubesae")
    logger.addHandler(console.LogHandler())
    sys.exit(_run(arguments))


def _run(arguments: list[str] | None) -> int:
    try:
        code: Any = group.main(args=arguments, prog_name="kubesae", standalone_mode=False)
    except KubesaeError as error:
        console.complain(f"kubesae: {error}")
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_USER
    except (KeyboardInterrupt, click.Abort):
        console.complain("kubesae: Interrupted: start again to go on from what is committed.")
        return EXIT_INTERRUPTED
    except Exception:
        logging.getLogger("kubesae").exception("kubesae: a fault that is not the user's:")
        return EXIT_FAULT
    return code if isinstance(code, int) else 0


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception: whatever is committed stays, the rest is done next time."""
    raise Interrupted(f"Stopped by {signal.Signals(number).name}: start again to go on from what is committed.")
