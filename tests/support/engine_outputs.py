"""Batches as a part has them, and what an engine gives for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kubesae.experiment import Experiment
from kubesae.model import resolve_model
from kubesae.model.inputs import Batch
from tiny_models import LAYERS, VOCABULARY

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.collect.capture import Engine
    from kubesae.model.source import ModelSource

Outputs = dict[tuple[int, int], torch.Tensor]
CAPTURED = (0, LAYERS - 2)


def source_of(folder: Path, layers: tuple[int, ...] = CAPTURED) -> ModelSource:
    return resolve_model(
        Experiment(data="unused", model=str(folder), layers=layers, corpora=({"name": "a", "source": "b"},), context=16)
    )


def some_batches(*, documents: bool = False) -> list[Batch]:
    """Batches as a part has them: equal ones, a smaller one, and a cut context."""
    generator = np.random.default_rng(0)
    found = []
    for contexts, length in ((3, 16), (3, 16), (2, 16), (1, 5)):
        ids_BT = generator.integers(0, VOCABULARY, (contexts, length)).astype(np.uint32)
        numbers_BT = np.sort(generator.integers(0, 3, (contexts, length)), 1) if documents else None
        found.append(Batch(ids_BT, numbers_BT))
    return found


def outputs(engine: Engine, batches: list[Batch]) -> Outputs:
    return {(number, layer): output for number, layer, output in engine.run(batches)}


def assert_equal(found: Outputs, expected: Outputs) -> None:
    assert found.keys() == expected.keys()
    for key, output in expected.items():
        assert output.float().std() > 0
        assert torch.equal(found[key], output), key
