"""A collected and verified experiment over a tiny random model, whose engine is loaded once for all repairs of it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import kubesae.collect.repairs
from kubesae.collect import Events, Share, collect
from kubesae.collect.machine import load_engine
from kubesae.experiment import Experiment
from kubesae.prepare import prepare
from kubesae.store import Store, open_store
from kubesae.verify import verify
from tiny_models import save_model, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PILOT_TOKENS = 200


def write_inputs(folder: Path, **sizes: int) -> None:
    """Write a model and a corpus; `sizes` are fields of the model's config."""
    save_model(folder / "model", "llama", **sizes)
    (folder / "corpus").mkdir()
    for i in range(60):
        (folder / "corpus" / f"{i}.txt").write_text(text(i))


def tiny_experiment(folder: Path, **changes: Any) -> Experiment:
    """Return the experiment over the inputs in `folder`: parts of 64 rows, blocks of 32, the last ones cut."""
    values: dict[str, Any] = {
        "data": str(folder / "data"),
        "model": str(folder / "model"),
        "layers": (1, 2),
        "corpora": ({"name": "words", "source": str(folder / "corpus"), "format": "text"},),
        "tokens": 3001,
        "num_shards": 2,
        "context": 16,
        "contexts_per_part": 4,
        "contexts_per_block": 2,
        "chunk": 500,
        "pilot": {"tokens": PILOT_TOKENS, "chunk": 100},
        "collect": {"forward_batch": 3, "threads": 1, "device": "cpu"},
    }
    return Experiment.model_validate(values | changes)


def collect_all(experiment: Experiment) -> None:
    """Prepare, collect and verify it."""
    store = open_store(experiment.data)
    prepare(experiment, store)
    collect(experiment, store, Share(tuple(range(experiment.num_shards))), Events(lambda _: None, experiment.chunk))
    assert verify(store, "all", "full", PILOT_TOKENS).passed


@contextmanager
def engine_kept() -> Iterator[None]:
    """Load the model of repairs once."""
    engines: list[object] = []

    def load_once(*arguments: Any) -> object:
        if not engines:
            engines.append(load_engine(*arguments))
        return engines[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kubesae.collect.repairs, "load_engine", load_once)
        yield


def copy_of(experiment: Experiment, folder: Path) -> tuple[Experiment, Store]:
    """Copy its data, to be damaged."""
    shutil.copytree(experiment.data, folder)
    return experiment.model_copy(update={"data": str(folder)}), open_store(str(folder))


def tree(store: Store) -> dict[str, bytes]:
    """Every object."""
    return {key: store.read(key) for key in store.list()}
