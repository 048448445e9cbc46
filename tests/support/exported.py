"""The small synthetic experiment, interpreted, with answers about its features."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kubesae.browse.page import write_page
from kubesae.experiment import Interpret
from kubesae.export import Subject, export
from kubesae.features import SCHEMAS, write_answers
from kubesae.interpret import interpret
from kubesae.store import open_store
from small_experiment import write_small
from small_sae import D_SAE, DEAD, write_sae

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from kubesae.store import Store

SETTINGS = Interpret(top_k=6, samples=5, context_tokens=4)


def interpreted(folder: Path, *, answered: bool = True, scale: float = 1, **changes: Any) -> Store:
    """Write the small experiment, its SAE and what `interpret` makes of it."""
    store = open_store(str(folder))
    write_small(store, **changes)
    write_sae(store, scale=scale)
    stored = interpret(store, store, "small", SETTINGS).stored
    if answered:
        write_answers(store, "small", stored.info.to_json(), answers(), head="0" * 40, coactivation_rows=1003)
    write_page(store, store, stored)
    return store


def subject(store: Store, features: str | None = None) -> Subject:
    """Open it."""
    return Subject.open(store, store, "small", features)


def written(store: Store, name: str, folder: Path, features: str | None = None) -> Store:
    """Export to a folder in `folder` and return the store of it."""
    out = open_store(str(folder / name))
    export(subject(store, features), name, out)
    return out


def json_lines(store: Store, key: str) -> list[dict[str, Any]]:
    """Return the rows of a gzipped file."""
    return [json.loads(line) for line in gzip.decompress(store.read(key)).splitlines()]


def dense(opened: Subject) -> npt.NDArray[np.float32]:
    """Return all activations [rows, features] from the sparse codes."""
    f_RF = np.zeros((opened.plan.tokens, D_SAE), np.float32)
    for codes in opened.cache.files():
        f_RF[codes.first_row + codes.row_N.astype(np.int64), codes.features_N()] = codes.value_N
    return f_RF


def answers() -> dict[str, pa.Table]:
    """Return answers of the right shape, whose numbers follow from the feature's."""
    rows = range(D_SAE)
    dead = [feature == DEAD for feature in rows]
    columns = {
        "labels": {
            "feature": rows,
            "label": ["" if gone else f"token 'w{feature + 2}'" for feature, gone in enumerate(dead)],
            "kind": ["dead" if gone else "token" for gone in dead],
            "purity": [0.0 if gone else 0.5 for gone in dead],
            "token": [-1 if gone else feature + 2 for feature, gone in enumerate(dead)],
            **{name: [False] * D_SAE for name in ("dense", "single_token", "positional")},
        },
        "logits": {
            "feature": rows,
            "high_tokens": [[feature + 2, 7] for feature in rows],
            "high_values": [[1.1, 0.1 * feature] for feature in rows],
            "low_tokens": [[3] for _ in rows],
            "low_values": [[-0.3] for _ in rows],
        },
        "neighbours": {
            "feature": rows,
            "neighbours": [[(feature + 1) % D_SAE] for feature in rows],
            "cosines": [[0.7] for _ in rows],
        },
        "coactivation": {"feature": rows, **{name: [[]] * D_SAE for name in ("others", "counts", "jaccard", "npmi")}},
        "populations": {
            "feature": rows,
            "population": ["planted"] * D_SAE,
            "rows": [900] * D_SAE,
            "count": rows,
            "mean_active": [1.0] * D_SAE,
        },
    }
    return {
        name: pa.table({column: list(values) for column, values in found.items()}).cast(SCHEMAS[name])
        for name, found in columns.items()
    }
