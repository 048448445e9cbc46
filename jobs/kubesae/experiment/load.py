"""Read an experiment from YAML: numbers as people write them, and errors a person can act on.

PyYAML follows YAML 1.1, in which `3e-4` is a string, `on` is a boolean and a key given twice silently wins. Here
`3e-4`, `1e9` and `250_000_000` are numbers, only `true` and `false` are booleans, and a repeated key is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import ValidationError

from kubesae.errors import ConfigError
from kubesae.experiment.spec import Experiment, Section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

S = TypeVar("S", bound=Section)

_FLOAT = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?$")
_INT = re.compile(r"[-+]?(0|[1-9][\d_]*)$")
_DIGITS = list("-+0123456789.")
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the resolvers of this module."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in {_NULL, _MERGE}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, _DIGITS)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _DIGITS)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    value = float(loader.construct_scalar(node).replace("_", ""))
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:float", _number)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse the YAML mapping `text`; `where` names it in errors.

    Raises:
        ConfigError: it is not YAML, or not a mapping.

    """
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).replace('"<unicode string>"', where)
        raise ConfigError(f"{where} is not valid YAML: {reason}") from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"{where} must be a mapping of fields, but holds {type(value).__name__}. Write `field: value` lines."
        )
    return value


def load_experiment(path: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read the experiment file at `path`; `overrides` maps dotted fields ("pilot.tokens", "sae.0.lr") to values.

    Raises:
        ConfigError: the file is not there, is not YAML, or does not describe an experiment.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"Cannot read the experiment file {path}: {reason}. Give the path of a YAML file.") from error
    values = parse_yaml(text, str(path))
    for field, value in (overrides or {}).items():
        set_field(values, field, value)
    return validate(Experiment, values, str(path))


def set_field(values: dict[str, Any], field: str, value: object) -> None:
    """Set the dotted `field` in nested `values`; a number steps into a list ("sae.0.lr").

    Raises:
        ConfigError: `values` hold something else where the field's section should be.

    """
    *parents, last = field.split(".")
    here: Any = values
    for name in parents:
        if isinstance(here, dict):
            here = here.setdefault(name, [{}] if name == "sae" else {})
        elif isinstance(here, list) and int(name) < len(here):
            here = here[int(name)]
        else:
            here = None
    if not isinstance(here, dict):
        section = ".".join(parents)
        raise ConfigError(f"{field} cannot be set, as {section} holds no fields. Write `field: value` lines there.")
    here[last] = value


def validate(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """Return `values` as a `kind`.

    Raises:
        ConfigError: naming each bad field, its value and what is expected.

    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        items = [dict(item) for item in error.errors(include_url=False)]
        lines = [_describe(kind, item) for item in items if not _follows(item, items)]
        count = "one field is" if len(lines) == 1 else f"{len(lines)} fields are"
        raise ConfigError(f"{where}: {count} not right:\n" + "\n".join(f"  {line}" for line in lines)) from error


def _follows(item: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Whether an error of a list only follows from one inside it: pydantic then counts the list as empty."""
    loc = item["loc"]
    return any(len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in items)


# Where pydantic speaks of Python, or of a regular expression: by type of error. The one pattern is that of names.
_IN_OUR_WORDS = {
    "tuple_type": "must be a list (it is {value!r}). Write [{value}].",
    "model_type": "must be a section (it is {value!r}). Write `field: value` lines below it.",
    "string_pattern_mismatch": "must be a name of lower-case letters, digits and dashes (it is {value!r}).",
}


def _describe(kind: type[Section], item: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{path}: there is no such field. {_suggest(kind, item['loc'])}"
    if item["type"] == "missing":
        return f"{path}: is required.{_meaning(kind, item['loc'])}"
    if said := _IN_OUR_WORDS.get(item["type"]):
        return f"{path}: {said.format(value=item['input'])}"
    message = item["msg"].removeprefix("Value error, ").replace("Tuple", "List").replace("tuple", "list")
    value = "" if item["type"] == "value_error" else f" (it is {item['input']!r})"
    return f"{path}: {message}{value}" if path else message


def _meaning(kind: type[Section], loc: tuple[str | int, ...]) -> str:
    description = _section_at(kind, loc[:-1]).model_fields[str(loc[-1])].description
    return f" It is the {description}." if description else ""


def _suggest(kind: type[Section], loc: tuple[str | int, ...]) -> str:
    import difflib  # noqa: PLC0415 - only for an error

    fields = list(_section_at(kind, loc[:-1]).model_fields)
    close = difflib.get_close_matches(str(loc[-1]), fields, n=1)
    return f"Did you mean {close[0]}?" if close else f"The fields here are: {', '.join(sorted(fields))}."


def _section_at(kind: type[Section], loc: tuple[str | int, ...]) -> type[Section]:
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        kind = next(t for t in inner if isinstance(t, type) and issubclass(t, Section))
    return kind
