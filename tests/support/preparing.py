"""Small corpora for `prepare`, and what it leaves there that counts.

inputs = write_units(folder, [["one", "two"], ["three"]])
prepared = tokens_of(store)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kubesae.experiment import Experiment
from kubesae.ledger import keys
from tiny_models import save_tokenizer, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kubesae.store import Store

UNITS = 4
"""files of the corpus `rows`"""


def write_units(folder: Path, units: Sequence[Sequence[str]], *, template: str | None = None) -> Path:
    """Write a tokenizer, and a corpus of a JSON lines file a unit, each with these documents."""
    (folder / "tiny").mkdir(parents=True)
    save_tokenizer(folder / "tiny", template=template)
    (folder / "rows").mkdir()
    for unit, documents in enumerate(units):
        lines = [json.dumps({"text": document}) + "\n" for document in documents]
        (folder / "rows" / f"{unit:02d}.jsonl").write_text("".join(lines))
    return folder


def some_units(sizes: Iterable[int]) -> list[list[str]]:
    """Return units of so many documents, all different."""
    return [[f"{unit} {i} {text(20 * unit + i)}" for i in range(size)] for unit, size in enumerate(sizes)]


def rows_experiment(inputs: Path, data: str, tokens: int, **changes: Any) -> Experiment:
    """Return an experiment over the corpus in `inputs`; a change of the corpus's field is called `corpus_<field>`."""
    corpus = {"name": "rows", "source": str(inputs / "rows")}
    for field in [name for name in changes if name.startswith("corpus_")]:
        corpus[field.removeprefix("corpus_")] = changes.pop(field)
    return experiment(inputs, data, **{"corpora": [corpus], "tokens": tokens, "num_shards": 3} | changes)


def tokens_of(store: Store) -> dict[str, bytes]:
    """Return the objects of the prepared tokens, without the segments that they were made of."""
    found = {key: store.read(key) for key in store.list("tokens/") if not key.startswith("tokens/segments/")}
    assert keys.TOKENS_MANIFEST in found
    return found


def experiment(inputs: Path, data: str, **changes: Any) -> Experiment:
    """Return an experiment of two shards over the corpus `rows` in `inputs`, with changes."""
    values: dict[str, Any] = {
        "data": data,
        "model": str(inputs / "tiny"),
        "layers": [0],
        "corpora": [{"name": "rows", "source": str(inputs / "rows")}],
        "tokens": 1003,
        "num_shards": 2,
        "context": 16,
        "contexts_per_part": 8,
    }
    return Experiment.model_validate(values | changes)


def mixed(inputs: Path, data: str, *weights: float, **changes: Any) -> Experiment:
    """Return one over the corpora `rows` and `files`, with these weights."""
    corpora = [
        {"name": name, "source": str(inputs / name), "weight": weight}
        for name, weight in zip(("rows", "files"), weights, strict=True)
    ]
    return experiment(inputs, data, corpora=corpora, **changes)


def contents(store: Store) -> dict[str, tuple[bytes, Any]]:
    """Return every object of a store, with what its listing says of it."""
    return {key: (store.read(key), info) for key, info in store.list().items()}
