"""The command line: `kubesae COMMAND`. Each command is a file of this folder, imported when it is called for.

kubesae --help
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import keyword
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from kubesae import __version__
from kubesae.cli import console
from kubesae.errors import EXIT_FAULT, EXIT_INTERRUPTED, EXIT_USER, Interrupted, KubesaeError
from kubesae.memory import is_out_of_memory, reason_of

if TYPE_CHECKING:
    from types import FrameType

# Set for the processes of `kubesae train-launch` (`kubesae.launch.exits`).
WORKER = "KUBESAE_EXIT_FOLDER"
COMMANDS = {
    "doctor": "Look at everything a run will need: machine, libraries, store, model, corpora.",
    "plan": "Say whether it fits, how long it takes and what it costs, from configs alone.",
    "fetch": "Bring a model to where programs load it from.",
    "truncate": "Bring a model without its later layers to where programs load it from.",
    "prepare": "Tokenise and pack the corpora, once, before any model runs.",
    "pilot": "Collect the first tokens of shard 0 and verify every byte of them.",
    "collect": "Run the model and stream activations to the store.",
    "monitor": "Show how far a run is, wherever it runs.",
    "verify": "Check collected activations against plan and records.",
    "repair": "Make again what is damaged, to the bytes that there were.",
    "gc": "Remove what killed programs left: orphans, open uploads, temporary files.",
    "ledger": "Account for every token of the plan: stored, flagged or missing.",
    "trace": "Show the source text around a row, and where the row lies.",
    "train": "Train a sparse autoencoder on collected activations.",
    "train-launch": "Train under torchrun, as the Pods of a training do.",
    "evaluate": "Measure an SAE: FVU, L0, dead features, CE loss recovered.",
    "compare": "Set all trained SAEs side by side: table, and plot of FVU by L0.",
    "interpret": "Feature statistics, top activating contexts, and what each feature means.",
    "page": "Show the page of an SAE's features in a browser, or write it into one file.",
    "explain": "Let a language model explain features, and judge how well it did.",
    "reason": "Features while the model reasons, and the tests that could refute them.",
    "export": "Write an SAE in the format of another library.",
    "import": "Take in an SAE that another library trained.",
    "release": "Let a phase of an experiment in a cluster begin.",
    "retry": "Make the failed jobs of a phase of an experiment anew.",
    "demo": "Run the whole pipeline on a small real model and real text.",
    "fixture": "Write a valid synthetic experiment, without a model.",
    "config": "Check an experiment file and print it with all defaults.",
    "completion": "Print a script that completes commands and flags in a shell.",
}


def module_of(name: str) -> str:
    """Return the module of a command; one that is a word of Python has an underscore at its end."""
    return "kubesae.cli." + name.replace("-", "_") + "_" * keyword.iskeyword(name)


class LazyGroup(click.Group):
    """Loads a command's module only when that command is called, so that `--help` answers at once."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Commands in the order of a run."""
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(module_of(name)).command
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was meant."""
        name = context.token_normalize_func(args[0]) if context.token_normalize_func else args[0]
        if not context.resilient_parsing and name not in COMMANDS and not name.startswith("-"):
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            context.fail(f"No such command {args[0]!r}." + (f" Did you mean {close[0]}?" if close else ""))
        return super().resolve_command(context, args)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name without importing one, or a flag of `kubesae` itself."""
        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, context, incomplete)

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
@click.version_option(__version__, prog_name="kubesae")
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
    code = _run_worker(arguments) if WORKER in os.environ else _run(arguments)
    if code == EXIT_INTERRUPTED:
        _leave(code)
    sys.exit(code)


def _run_worker(arguments: list[str] | None) -> int:
    """Run as one of several processes of `kubesae train-launch`, which says once what all of them ended of."""
    from kubesae.launch import begin_worker, end_worker  # noqa: PLC0415 - nobody else needs it

    if not begin_worker():
        return EXIT_USER
    messages = console.hold_complaints()
    code = _run(arguments)
    end_worker(code, messages)
    return code


def _run(arguments: list[str] | None) -> int:
    try:
        code: Any = group.main(args=arguments, prog_name="kubesae", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        console.complain("kubesae: Interrupted: start again to go on from what is committed.")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place that sees it
        if WORKER in os.environ:  # another worker's end stops us: ours is its result, and shall be said
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return explain(error)
    return code if isinstance(code, int) else 0


def explain(error: Exception) -> int:
    """Say what an error means, without a traceback where it is a user's mistake, and return the exit code."""
    if isinstance(error, KubesaeError):
        console.complain(f"kubesae: {error}")
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return EXIT_USER
    if isinstance(error, ModuleNotFoundError):
        package = str(error.name).partition(".")[0]
        console.complain(
            f"kubesae: This command needs the package {package!r}, which is not installed. `pip install "
            "'kubesae[batch]'` brings what all programs need; `kubesae doctor` shows what is there."
        )
        return EXIT_USER
    if is_out_of_memory(error):
        console.complain(
            f"kubesae: Memory ran out ({reason_of(error)}). Give this process more memory and start again: what is "
            "committed stays."
        )
        return EXIT_FAULT
    logging.getLogger("kubesae").error("kubesae: a fault that is not the user's:", exc_info=error)
    return EXIT_FAULT


def _leave(code: int) -> None:
    """End at once: Python would wait for threads, and a store may leave their reads without an answer for minutes."""
    with contextlib.suppress(OSError):  # nobody reads what we print any more
        sys.stdout.flush()
    os._exit(code)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Turn SIGTERM into an exception: whatever is committed stays, the rest is done next time."""
    raise Interrupted(f"Stopped by {signal.Signals(number).name}: start again to go on from what is committed.")
