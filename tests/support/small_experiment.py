"""The smallest synthetic experiment with every edge: several layers and blocks, unequal shards, cut last contexts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kubesae.experiment import Experiment, canonical_json
from kubesae.fixture import write_fixture

if TYPE_CHECKING:
    from kubesae.experiment import DataIdentity
    from kubesae.store import Store

D_MODEL = 8
FEATURES = 32

VALUES: dict[str, Any] = {
    "name": "small",
    "model": "planted",
    "corpora": [{"name": "planted", "source": "planted"}],
    "layers": [1, 4],
    "tokens": 1003,  # 502 and 501 rows: 32 contexts each, of which the last has 6 and 5 rows
    "num_shards": 2,
    "context": 16,
    "contexts_per_part": 12,  # parts of 192, 192 and the rest
    "contexts_per_block": 5,  # blocks of 80, 80 and 32 rows
    "chunk": 200,
    "pilot": {"tokens": 200, "chunk": 100},
}


def small_experiment(data: str, **changes: Any) -> Experiment:
    """Return the experiment at the prefix `data`, with `changes` to its fields."""
    return Experiment.model_validate(VALUES | changes | {"data": data})


def write_small(store: Store, **changes: Any) -> DataIdentity:
    """Write the experiment to `store` and return its identity."""
    return write_fixture(small_experiment(store.url, **changes), store, D_MODEL, FEATURES)


def edit_record(store: Store, key: str, **changes: Any) -> None:
    """Change fields of a record; those of its first layer are given as `layer_FIELD`."""
    values = json.loads(store.read(key))
    for name, value in changes.items():
        if name.startswith("layer_"):
            values["layers"][0][name.removeprefix("layer_")] = value
        else:
            values[name] = value
    store.put(key, canonical_json(values))
