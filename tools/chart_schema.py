"""Make what is generated of the charts: values.schema.json, README.md, and what the templates know of an experiment.

    .venv/bin/python tools/chart_schema.py            # write them
    .venv/bin/python tools/chart_schema.py --check    # exit code 1, naming the files, if one is not as it would be made

A chart's values.yaml is the one definition of its values: a comment that begins with `# --` says what the value below
it is, a line `# @schema {...}` what it may be where its default does not show it. The schema of an experiment, its
defaults, and which of its fields decide the data come from `kubesae.experiment`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kubesae.experiment import PRESETS, Corpus, DataIdentity, Experiment, Sae, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

CHARTS = Path(__file__).resolve().parent.parent / "helm"
_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):")

_QUANTITY = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|e[0-9]+)?$"}
_AMOUNTS = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Quantity"}}
DEFINITIONS: dict[str, Any] = {
    "Quantity": _QUANTITY,
    "Reference": {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
    "Resources": {
        "type": "object",
        "properties": {"requests": _AMOUNTS, "limits": _AMOUNTS},
        "additionalProperties": False,
    },
}
# What `prepare` makes tokens/manifest.json of; the other fields of the data's identity bear the experiment's own names.
_DECIDES_TOKENS = ("corpora", "bos", "separator", "seed")


@dataclass
class Value:
    """One value of a values.yaml: where it is, its default, what it is, and what it may be."""

    path: tuple[str, ...]
    default: Any
    description: str
    constraint: dict[str, Any]


@dataclass
class _Comment:
    description: list[str] = field(default_factory=list)
    constraint: dict[str, Any] = field(default_factory=dict)

    def take(self, text: str) -> None:
        if text.startswith("-- "):
            self.description, self.constraint = [text[3:]], {}
        elif text.startswith("@schema "):
            self.constraint = json.loads(text[8:])
        elif self.description:
            self.description.append(text)


def read_values(text: str) -> Iterator[Value]:
    """Yield the documented values of a values.yaml in its order; what lies below a documented value belongs to it."""
    defaults = yaml.safe_load(text)
    stack: list[tuple[int, str]] = []
    comment = _Comment()
    inside: int | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.take(stripped[1:].strip())
            continue
        match = _KEY.match(line)
        indent = len(match[1]) if match else 0
        if match and (inside is None or indent <= inside):
            inside = None
            stack = [*(entry for entry in stack if entry[0] < indent), (indent, match[2])]
            if comment.description:
                path = tuple(name for _, name in stack)
                yield Value(path, _at(defaults, path), " ".join(comment.description), comment.constraint)
                inside = indent
        comment = _Comment()


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values


def chart_schema(values: list[Value], *, experiment: bool) -> dict[str, Any]:
    """Return the schema of a chart's values."""
    root: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    for value in values:
        section = root
        for name in value.path[:-1]:
            empty = {"type": "object", "properties": {}, "additionalProperties": False}
            section = section["properties"].setdefault(name, empty)
        section["properties"][value.path[-1]] = {"description": value.description} | _constraint(value)
    definitions = dict(DEFINITIONS)
    if experiment:
        described = _from_one(Experiment.model_json_schema())
        definitions |= described.pop("$defs") | {"Experiment": described}
        root["required"] = ["experiment"]
        phases = root["properties"]["phases"]["properties"]
        for name, phase in phases.items():
            if name != "all":
                phase["properties"] = phases["all"]["properties"] | phase["properties"]
    # What Helm hands to a chart that another one depends on.
    root["properties"]["global"] = {"type": "object"}
    used = json.dumps([root, definitions.get("Experiment")])
    kept = {name: schema for name, schema in definitions.items() if f"#/$defs/{name}" in used or name == "Quantity"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | root | {"$defs": kept}


def _from_one(schema: Any) -> Any:
    """Say of integers `minimum: 1` for `exclusiveMinimum: 0`: Helm's message on the latter is "got 0, want 0"."""
    if isinstance(schema, list):
        return [_from_one(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "integer" and "exclusiveMinimum" in schema:
        schema = schema | {"minimum": schema["exclusiveMinimum"] + 1}
        del schema["exclusiveMinimum"]
    return {name: _from_one(value) for name, value in schema.items()}


def _constraint(value: Value) -> dict[str, Any]:
    if {"$ref", "anyOf", "enum"} & set(value.constraint):
        return value.constraint
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    inferred: dict[str, Any] = {} if value.default is None else {"type": kinds[type(value.default)]}
    return inferred | value.constraint


def experiment_facts() -> dict[str, Any]:
    """Return what the templates know of an experiment: defaults, presets, which fields decide its data."""
    decides = {"data", *_DECIDES_TOKENS, *(set(DataIdentity.model_fields) & set(Experiment.model_fields))}
    sections: dict[str, type[Section]] = {"experiment": Experiment, "corpora": Corpus, "sae": Sae}
    defaults = {}
    for name, section in sections.items():
        schema = section.model_json_schema()["properties"]
        defaults[name] = {field: info["default"] for field, info in schema.items() if "default" in info}
    return {"decidesData": sorted(decides), "defaults": defaults, "presets": PRESETS}


def readme(chart: Path, values: list[Value]) -> str:
    """Return the chart's README: its own head, and the reference of its values."""
    head = (chart / "README.head.md").read_text(encoding="utf-8")
    return head + "\n" + "\n".join(_reference(values)) + "\n"


def _reference(values: list[Value]) -> Iterator[str]:
    yield "## Values"
    yield ""
    yield "Made from [values.yaml](values.yaml); a test keeps it true."
    section = None
    for value in sorted(values, key=lambda value: len(value.path) > 1):
        here = ".".join(value.path[:2]) if value.path[0] == "phases" else value.path[0] if len(value.path) > 1 else ""
        if here != section:
            section = here
            yield from ("", f"### `{here}`" if here else "### Top level", "")
            yield from ("| value | default | what it is |", "|---|---|---|")
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        yield f"| `{'.'.join(value.path)}` | `{default}` | {value.description.replace('|', chr(92) + '|')} |"


def generated() -> Iterator[tuple[Path, str]]:
    """Yield each generated file and what it should hold."""
    for name in ("experiment", "operator"):
        chart = CHARTS / name
        values = list(read_values((chart / "values.yaml").read_text(encoding="utf-8")))
        yield chart / "values.schema.json", _json(chart_schema(values, experiment=name == "experiment"))
        yield chart / "README.md", readme(chart, values)
    yield CHARTS / "experiment" / "files" / "experiment.json", _json(experiment_facts())


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check the generated files."""
    different = []
    for path, text in generated():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            different.append(str(path))
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if different and "--check" in arguments:
        sys.stderr.write(f"Not as tools/chart_schema.py makes them: {', '.join(different)}. Run it.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
