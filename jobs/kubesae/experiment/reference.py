"""The reference page of the experiment file, made from the model: a field, its type, its default, what it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.experiment.spec import Collect, Corpus, Experiment, Interpret, Pilot, Sae, Section, Verify

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS: dict[str, type[Section]] = {
    "": Experiment,
    "corpora": Corpus,
    "pilot": Pilot,
    "collect": Collect,
    "verify": Verify,
    "sae": Sae,
    "interpret": Interpret,
}
LISTS = ("corpora", "sae")


def reference_page() -> str:
    """Return the page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# The experiment file"
    yield ""
    yield "Made by `kubesae config --reference`; a test keeps it true."
    yield "Numbers may be written `3e-4`, `1e9`, `250_000_000`."
    for name, section in SECTIONS.items():
        yield ""
        if name:
            yield f"## `{name}`{' (a list)' if name in LISTS else ''}"
            yield ""
            yield (section.__doc__ or "").splitlines()[0]
            yield ""
        yield "| field | type | default | what it is |"
        yield "|---|---|---|---|"
        schema = section.model_json_schema()
        for field, info in section.model_fields.items():
            if info.annotation in SECTIONS.values():
                continue
            default = "required" if info.is_required() else _shown(info.default)
            yield f"| `{field}` | {_type(schema['properties'][field])} | {default} | {info.description} |"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        items = schema["items"]
        return "list of sections" if "$ref" in items else f"list of {_type(items)}s"
    kind = str(schema["type"])
    return "true or false" if kind == "boolean" else kind


def _shown(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, tuple):
        numbers = all(isinstance(item, float) for item in default)
        return ", ".join(map(str, default)) if numbers else "one, with its defaults"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:_}" if isinstance(default, int) else str(default)
