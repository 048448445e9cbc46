"""Corpora by a name: each preset stands for a data set of the hub that is plain Parquet or JSON, not a script.

`corpora: [{preset: wikipedia}]` is the same as writing the fields below out; what is written beside it wins. Which
data set stands for what, its licence and its size: docs/corpora.md.
"""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["wikipedia", "books", "code", "mathematics", "proofs", "reasoning"]

PRESETS: dict[Preset, dict[str, Any]] = {
    "wikipedia": {"source": "wikimedia/wikipedia", "config": "20231101.en"},
    "books": {"source": "emozilla/pg19"},
    "code": {"source": "codeparrot/codeparrot-clean-train", "field": "content"},
    "mathematics": {"source": "open-web-math/open-web-math"},
    "proofs": {"source": "xu3kev/proof-pile-2-proofsteps", "split": "isa_proofsteps"},
    "reasoning": {"source": "open-r1/OpenR1-Math-220k", "config": "all", "messages": ["messages"]},
}


def with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Return a corpus's values with those of the preset that it names, which is then not named any more.

    Raises:
        ValueError: there is no such preset.

    """
    name = values.get("preset")
    if name is None:
        return values
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}, or write `source`")
    given = {field: value for field, value in values.items() if field != "preset"}
    return {"name": name} | PRESETS[name] | given
