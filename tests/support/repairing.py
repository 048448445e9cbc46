"""Break what was collected, repair it, and compare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from kubesae.collect import plan_work, repair
from kubesae.experiment import Experiment, canonical_json
from kubesae.ledger import keys, read_record
from kubesae.model.resident import ResidentEngine
from kubesae.prepare import restore_tokens
from kubesae.verify import examine
from tiny_collected import PILOT_TOKENS, tree

if TYPE_CHECKING:
    import pytest

    from kubesae.store import Store


def run(experiment: Experiment, store: Store, mode: Any = "full", **options: Any) -> list[str]:
    """Verify and repair once; the lines."""
    lines: list[str] = []
    work = plan_work(store, examine(store, "all", mode, PILOT_TOKENS).findings)
    repair(experiment, store, work, lambda files: restore_tokens(experiment, store, files), say=lines.append, **options)
    return lines


def data_of(store: Store) -> dict[str, bytes]:
    """Every object but the report, which says what was found last, and the lists of URLs, which name the prefix."""
    return {
        key: data for key, data in tree(store).items() if not key.startswith("verify/") and not key.endswith(".txt")
    }


def flip(store: Store, key: str) -> None:
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def tar_of(store: Store, shard: int, part: int, layer: int = 0) -> str:
    return read_record(store, shard, part).layers[layer].key


def edit_numerics(store: Store, part: int, **changes: Any) -> None:
    key = keys.record(0, part)
    values = json.loads(store.read(key))
    values["numerics"] |= changes
    store.put(key, canonical_json(values))


def bits_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny model do what large ones do."""
    forward = ResidentEngine.forward

    def by_threads(self: ResidentEngine, *arguments: Any) -> dict[int, torch.Tensor]:
        outputs = forward(self, *arguments)
        return {layer: output + torch.get_num_threads() / 8 for layer, output in outputs.items()}

    monkeypatch.setattr(ResidentEngine, "forward", by_threads)
