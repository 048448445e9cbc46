"""The experiment of the fault suite: a random model of two layers, 12,001 tokens in 12 parts, an SAE of 72 steps.

A `Scene` is that experiment at one prefix, and what is done to the programs that run there.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from fault_worker import Fault
from kubesae.ledger import record_list
from kubesae.store import open_store
from tiny_models import save_model, text

if TYPE_CHECKING:
    from pathlib import Path

    from fault_workers import Worker, Workers
    from faults import Faults, Objects
    from kubesae.store import Store

PARTS = 12
EPOCHS = 3
VALUES: dict[str, Any] = {
    "name": "faults",
    "layers": [1, 2],
    "tokens": 12_001,  # of the last context of each shard only a piece
    "num_shards": 2,
    "context": 64,
    "contexts_per_part": 16,
    "contexts_per_block": 4,
    "chunk": 2_000,
    "pilot": {"tokens": 2_000, "chunk": 1_000},
    "collect": {"threads": 1, "forward_batch": 4},
    "interpret": {"unit_tokens": 1_024},
    "sae": [{"name": "small", "layer": 2, "d_sae": 48, "batch_size": 512, "epochs": EPOCHS, "lr": 3e-3}],
}
UNITS = 6


def write_inputs(folder: Path) -> None:
    """Write a model and a corpus of six files: each can be a segment of `prepare`."""
    save_model(folder / "model", "llama")
    (folder / "corpus").mkdir()
    for unit in range(UNITS):
        rows = (json.dumps({"text": text(100 * unit + i)}) + "\n" for i in range(45))
        (folder / "corpus" / f"{unit}.jsonl").write_text("".join(rows))


def write_experiment(file: Path, inputs: Path, data: str, **changes: Any) -> Path:
    """Write the experiment file of one prefix."""
    corpora = [{"name": "words", "source": str(inputs / "corpus")}]
    values = VALUES | {"data": data, "model": str(inputs / "model"), "corpora": corpora} | changes
    file.write_text(yaml.safe_dump(values))
    return file


@dataclass
class Scene:
    """One prefix, with what is needed to run programs there and to judge what they leave."""

    workers: Workers
    faults: Faults
    file: Path
    store: Store
    program: tuple[str, ...]
    expected: Objects

    def start(self, *more: object, **options: Any) -> Worker:
        """Start the program."""
        name, *arguments = self.program
        return self.workers.start(name, self.file, *arguments, *more, **options)

    def finish(self, *more: object, **options: Any) -> Worker:
        """Run the program to its end."""
        worker = self.start(*more, **options)
        assert worker.wait() == 0, worker.output
        return worker

    def kill_at(self, point: str, passage: int, **options: Any) -> None:
        """Run the program until it dies at a point; that counts if something is left to do."""
        worker = self.start(fault=Fault(point, passage), **options)
        assert worker.wait() == -signal.SIGKILL, f"{point} {passage}: {worker.output} {worker.passages}"
        assert worker.passages.count(point) >= passage  # more where several threads pass it
        assert self.in_progress
        self.faults.count(f"{self.program[0]}: kill {point}")

    @property
    def in_progress(self) -> bool:
        """Whether something is left to do."""
        return self.program[0] != "collect" or len(record_list(self.store)) < PARTS

    def compare(self, *others: Objects) -> list[str]:
        """Compare what is there with the undisturbed run's; return what is lost, doubled or unequal."""
        if self.program[0] == "train":
            return self.faults.compare_training(self.store, self.expected)
        return self.faults.compare(self.store, self.expected, *others)


def fill(url: str, found: Objects) -> Store:
    """Write these objects to the store at `url`."""
    store = open_store(url)
    for key, data in found.items():
        store.put(key, data)
    return store
