"""Counts faults, and compares a store that went through them with one that did not.

    faults.count("kill in forward")
    faults.compare(store, expected)

*Lost*: committed in the undisturbed run, not here. *Doubled*: committed here and not there, or bytes of one part named
by two records. *Unequal*: other bytes. What no record names may only be an orphan: a tar or moments file of a part.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubesae.ledger import keys, parse_record
from tensorboard_points import points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.store import Store

_ORPHAN = re.compile(r"activations/(moments/)?layer-\d{3}/shard-\d{4}/part-\d{6}\.[0-9a-f]{12}\.(tar|npz)")
# No data: a run's settings, which a test may have changed, and what a process leaves that dies trying the store.
_OTHER = re.compile(r"runs/.*|kubesae-probe-[0-9a-f]{16}")
_TIMES = ("tokens_per_second", "data_wait_share")

Objects = dict[str, bytes]


@dataclass
class Faults:
    """What the suite did, and what came of it."""

    tests: int = 0
    skipped: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    found: dict[str, list[str]] = field(default_factory=lambda: {"lost": [], "doubled": [], "unequal": []})

    def count(self, kind: str, times: int = 1) -> None:
        """Count a fault that struck while something was in progress."""
        self.kinds[kind] += times

    def lost(self, *what: str) -> None:
        """Note what was committed and is not there."""
        self.found["lost"] += what

    def doubled(self, *what: str) -> None:
        """Note what was committed twice."""
        self.found["doubled"] += what

    def unequal(self, *what: str) -> None:
        """Note what has other bytes than it had without a fault."""
        self.found["unequal"] += what

    def add(self, kinds: Mapping[str, int], found: Mapping[str, list[str]]) -> None:
        """Add the faults of another process, and what came of them; its tests are counted here already."""
        self.kinds.update(kinds)
        for name, what in found.items():
            self.found[name] += what

    @property
    def any_found(self) -> bool:
        """Whether anything was lost, doubled or unequal."""
        return any(self.found.values())

    def line(self) -> str:
        """Return the suite's result, one JSON line."""
        kinds = {"tests": self.tests, "skipped": self.skipped, "faults_by_kind": dict(sorted(self.kinds.items()))}
        return json.dumps(kinds | {name: len(what) for name, what in self.found.items()})

    def compare(self, store: Store, *expected: Objects) -> list[str]:
        """Compare everything in `store` with an undisturbed run's; of several (numerics classes) with any of them.

        Returns what is lost, doubled or unequal, each with its key.
        """
        found = _data(objects(store))
        expected = tuple(map(_data, expected))
        before = {name: len(what) for name, what in self.found.items()}
        named: Counter[str] = Counter()
        for key, data in found.items():
            theirs = [run for run in expected if key in run]
            if not theirs:
                if keys.parse_record(key):
                    self.doubled(key)
            elif data not in (run[key] for run in theirs):
                self.unequal(key)
            if keys.parse_record(key):
                record = parse_record(data, key)
                named.update(name for layer in record.layers for name in (layer.key, layer.moments))
        self.lost(*(expected[0].keys() - found.keys() - _content(expected[0])), *(named.keys() - found.keys()))
        self.doubled(*(name for name, count in named.items() if count > 1))
        foreign = [key for key in found if not any(key in run for run in expected)]
        self.unequal(*(key for key in foreign if not _ORPHAN.fullmatch(key)))
        return [f"{name}: {key}" for name, what in self.found.items() for key in what[before[name] :]]

    def compare_training(self, output: Store, expected: Objects) -> list[str]:
        """Compare an SAE's files, and its lines of metrics but for times, with those of an undisturbed training.

        Returns what is lost, doubled or unequal.
        """
        found = training(objects(output))
        wanted = training(expected)
        self.lost(*(lost := wanted.keys() - found.keys()))
        self.doubled(*(doubled := found.keys() - wanted.keys()))
        self.unequal(*(unequal := [key for key in wanted.keys() & found.keys() if wanted[key] != found[key]]))
        return [*lost, *doubled, *unequal]


def objects(store: Store) -> Objects:
    """Return every object of a store."""
    return {key: store.read(key) for key in store.list()}


def _data(run: Objects) -> Objects:
    return {key: data for key, data in run.items() if not _OTHER.fullmatch(key)}


def _content(run: Mapping[str, bytes]) -> set[str]:
    """Return what is named by content: other numerics give other names, and the record says which count."""
    return {key for key in run if _ORPHAN.fullmatch(key)}


def training(found: Objects) -> dict[str, Any]:
    """Return what trainings must end with: files, lines of metrics by kind and step, points of TensorBoard."""
    kept: dict[str, Any] = {}
    for key, data in sorted(found.items()):
        if "/metrics/" in key:
            for line in map(json.loads, data.splitlines()):
                name = f"{key.partition('/metrics/')[0]} {line['kind']} {line['step']}"
                kept[name] = {k: v for k, v in line.items() if k not in _TIMES}
        elif "/tensorboard/" in key:
            folder = key.rpartition("/")[0]
            kept |= {f"{folder} {tag} {step}": x for tag, step, x in points(data) if not tag.endswith(_TIMES)}
        elif key.startswith("sae/") and not key.endswith("report.html"):
            kept[key] = data
    return kept
