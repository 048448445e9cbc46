"""A worker of `interpret` over the small synthetic experiment, in this process or another."""

from __future__ import annotations

from kubesae.experiment import Interpret
from kubesae.interpret import interpret_share
from kubesae.store import open_store

# A part is a unit: of each shard 192, 192 and the rest.
SETTINGS = Interpret(top_k=6, samples=5, context_tokens=4, unit_tokens=150)


def work(data: str, output: str, index: int, of: int) -> bool:
    """Work as one of several; say whether everything was there at the end."""
    found = interpret_share(open_store(data), open_store(output), None, SETTINGS, index, of)
    return found is not None
