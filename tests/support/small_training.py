"""Trainings on the small synthetic experiment: each takes a moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubesae.experiment import Sae as Settings
from kubesae.train import Console, Limits, TrainResult, TrainResults, run_training, run_trainings

if TYPE_CHECKING:
    from kubesae.store import Store

SMALL: dict[str, Any] = {
    "layer": 4,
    "d_sae": 24,
    "lr": 5e-3,
    "batch_size": 64,
    "epochs": 3,
    "shuffle_rows": 300,
}
TOPK = SMALL | {"architecture": "topk", "k": 3}
BATCHTOPK = SMALL | {"architecture": "batchtopk", "k": 3}
MATRYOSHKA = BATCHTOPK | {"architecture": "matryoshka"}
RELU = SMALL | {"architecture": "relu"}


@dataclass
class Training:
    """Where a training writes, and the lines it printed."""

    data: Store
    output: Store
    lines: list[str] = field(default_factory=list)

    def run(self, settings: dict[str, Any], limits: Limits | None = None) -> TrainResult:
        return run_training(
            self.data,
            self.output,
            Settings(**settings),
            chunk=200,
            console=Console(self.lines.append),
            device="cpu",
            limits=limits,
        )

    def run_all(self, several: list[dict[str, Any]], limits: Limits | None = None) -> TrainResults:
        return run_trainings(
            self.data,
            self.output,
            [Settings(**settings) for settings in several],
            chunk=200,
            console=Console(self.lines.append),
            device="cpu",
            limits=limits,
        )

    def files(self, suffix: str = "") -> dict[str, bytes]:
        return {key: self.output.read(key) for key in self.output.list() if key.endswith(suffix)}


JUMPRELU = SMALL | {"architecture": "jumprelu"}
GATED = SMALL | {"architecture": "gated"}
