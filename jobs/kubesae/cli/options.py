"""Flags made from the experiment's fields: name, help and default of each come from `experiment.spec`.

Every value is read as the YAML file would read it, so `--tokens 1e9`, `--lr 3e-4` and `--layers 30,45,55` mean what
they mean there. Underscores in flags are taken as dashes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from kubesae.errors import ConfigError
from kubesae.experiment import Experiment, Sae, Section, load_experiment, parse_yaml, set_field, validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

F = Any

# Fields that take a folder, among other things: a shell completes these.
FOLDERS = frozenset({"data", "output", "model"})

SAE_FORMATS = ("sae-lens", "sparsify", "dictionary-learning")
"""keys of `kubesae.sae.formats.FORMATS`, which loads torch"""


def experiment_options(*fields: str) -> Callable[[F], F]:
    """Give a command the EXPERIMENT argument and a flag for each of `fields`, dotted as in "pilot.tokens"."""

    def decorate(command: F) -> F:
        command = all_options("data", "output", *fields)(command)
        file = click.Path(path_type=Path, dir_okay=False)
        return click.argument("experiment", required=False, type=file, envvar="KUBESAE_EXPERIMENT")(command)

    return decorate


def all_options(*fields: str) -> Callable[[F], F]:
    """Give a command a flag for each of `fields`."""

    def decorate(command: F) -> F:
        for field in reversed(fields):
            command = _option(field)(command)
        return command

    return decorate


def metrics_option(command: F) -> F:
    """Give a command the flag --metrics-port."""
    return click.option(
        "--metrics-port",
        type=click.IntRange(1, 65535),
        envvar="KUBESAE_METRICS_PORT",
        help="serve Prometheus metrics on this port (docs/metrics.md)",
    )(command)


def share_options(what: str) -> Callable[[F], F]:
    """Give a command the flags --index and --of, of workers that share `what`; `check_share` reads them."""

    def decorate(command: F) -> F:
        of = click.option("--of", type=click.IntRange(1), help=f"number of workers that share {what}")
        text = "number of this worker, from 0"
        index = click.option("--index", type=click.IntRange(0), envvar="JOB_COMPLETION_INDEX", help=text)
        return index(of(command))

    return decorate


def check_share(index: int | None, of: int | None) -> tuple[int, int]:
    """Return the number of this worker and of all; alone without --of, whatever a Job's environment says.

    Raises:
        ConfigError: the number is missing, or not one of them.

    """
    if of is None:
        return 0, 1
    if index is None:
        raise ConfigError(f"--of {of} needs --index, from 0 to {of - 1}.")
    if index >= of:
        raise ConfigError(f"--index {index} is none of --of {of} workers. Give --index from 0 to {of - 1}.")
    return index, of


def format_option(*others: str) -> Callable[[F], F]:
    """Give a command the flag --format: that of another library's SAEs, or one of `others`."""
    names = click.Choice([*SAE_FORMATS, *others])
    return click.option("--format", "format_name", type=names, required=True, help="the other library, or its format")


def section_fields(section: str) -> list[str]:
    """Return the dotted fields of a section of the experiment ("sae" for those of one SAE)."""
    kind: type[Section] = Sae if section == "sae" else type(Experiment.model_fields[section].default)
    prefix = "sae.0" if section == "sae" else section
    return [f"{prefix}.{name}" for name in kind.model_fields]


def flag_of(field: str) -> str:
    """Return the flag of a dotted field: its last name, or the section's too where that alone would be ambiguous."""
    section, _, name = field.rpartition(".")
    if section in {"pilot", "verify"} or (section == "sae.0" and name == "seed") or field == "sae.0.name":
        return f"--{section.removesuffix('.0')}-{name}".replace("_", "-")
    return f"--{name}".replace("_", "-")


def _option(field: str) -> Callable[[F], F]:
    info = _field_info(field)
    required = info.is_required() or info.default in (None, ())
    default = "" if required else f"  [default: {_shown(info.default)}]"
    text = f"{info.description}{default}"
    if info.annotation is bool:
        flag = flag_of(field)
        return click.option(f"{flag}/--no-{flag[2:]}", _variable(field), default=None, help=text)
    values = _choices(info)

    def complete(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if field in FOLDERS:
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(value) for value in values if value.startswith(incomplete)]

    return click.option(flag_of(field), _variable(field), metavar=_metavar(info), help=text, shell_complete=complete)


def _field_info(field: str) -> FieldInfo:
    section, _, name = field.rpartition(".")
    if not section:
        return Experiment.model_fields[name]
    kind: type[Section] = Sae if section == "sae.0" else type(Experiment.model_fields[section].default)
    return kind.model_fields[name]


def _variable(field: str) -> str:
    return "field_" + field.replace(".", "__")


def _choices(info: FieldInfo) -> list[str]:
    """Return the words that a field takes, none where it takes others too."""
    return [str(value) for value in get_args(info.annotation)] if get_origin(info.annotation) is Literal else []


def _metavar(info: FieldInfo) -> str:
    if values := _choices(info):
        return f"[{'|'.join(values)}]"
    text = str(info.annotation)
    for word, shown in (("tuple", "LIST"), ("int", "N"), ("float", "X")):
        if word in text:
            return shown
    return "TEXT"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)


def overrides(values: dict[str, Any]) -> dict[str, Any]:
    """Return the dotted fields that were given as flags, and take their variables out of `values`."""
    given = {}
    for variable in [name for name in values if name.startswith("field_")]:
        value = values.pop(variable)
        if value is not None:
            field = variable.removeprefix("field_").replace("__", ".")
            given[field] = parse_flag(field, value)
    return given


def parse_flag(field: str, value: object) -> object:
    """Read a flag's text: as it is where the field is text, else as YAML; a list may be given with commas."""
    if not isinstance(value, str):
        return value
    info = _field_info(field)
    metavar = _metavar(info)
    if metavar == "TEXT" or _choices(info):
        return value
    if metavar == "LIST" and not value.startswith("["):
        value = f"[{value}]"
    return parse_yaml(f"value: {value}", flag_of(field))["value"]


def resolve(experiment: Path | None, given: dict[str, Any]) -> Experiment:
    """Return the experiment of a command: from its file, else from what lies at `--data`, with the flags laid over it.

    Raises:
        ConfigError: neither is there, or a value is not right.

    """
    if experiment is not None:
        return load_experiment(experiment, given)
    if "data" not in given:
        raise ConfigError("Which experiment? Give its YAML file, or --data with a prefix that holds one.")
    from kubesae.ledger import read_run  # noqa: PLC0415 - keeps --help fast
    from kubesae.store import open_store  # noqa: PLC0415

    found = read_run(open_store(given["data"]))
    if found is None:
        raise ConfigError(f"No experiment is recorded at {given['data']}. Give its YAML file.")
    values = found.model_dump(mode="json")
    for field, value in given.items():
        set_field(values, field, value)
    return validate(Experiment, values, f"the experiment at {given['data']} with your flags")


def choose_sae(experiment: Experiment, name: str | None) -> str | None:
    """Return the SAE that a command is about: the flag's, else the experiment's if it names one alone, else None."""
    return name if name or len(experiment.sae) > 1 else experiment.sae[0].name
