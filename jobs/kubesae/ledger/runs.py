"""What runs were started with: `runs/<release>-<hash>.json`, so that the data says where it came from.

The prefixes are left out and of a local path only its last part is kept: a copied or moved prefix says the same.
Later programs need no experiment file: `read_run` gives them the newest run's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.experiment import Experiment, canonical_json, parse_json_object, public_name, sha256_hex, validate
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.store import Store


def write_run(store: Store, experiment: Experiment) -> None:
    """Record what a run is started with, once for the same settings."""
    values: dict[str, Any] = experiment.model_dump(mode="json", exclude={"data", "output"})
    values["model"] = public_name(experiment.model)
    for corpus in values["corpora"]:
        corpus["source"] = public_name(corpus["source"])
    data = canonical_json(values)
    store.create(keys.run(experiment.name, sha256_hex(data)[:12]), data)


def read_run(store: Store) -> Experiment | None:
    """Return the newest run's experiment, its `data` set to this store; None when no run is recorded."""
    found = store.list("runs/")
    if not found:
        return None
    key = max(found, key=lambda name: (found[name].modified, name))
    where = f"{store.url}/{key}"
    return validate(Experiment, parse_json_object(store.read(key), where) | {"data": store.url}, where)
