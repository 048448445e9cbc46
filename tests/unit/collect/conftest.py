"""A tiny experiment that was collected, and a copy of it to break."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tiny_collected import collect_all, copy_of, engine_kept, tiny_experiment, write_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubesae.experiment import Experiment
    from kubesae.store import Store


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    folder = tmp_path_factory.mktemp("repair")
    write_inputs(folder)
    experiment = tiny_experiment(folder, tokens=500)
    collect_all(experiment)
    with engine_kept():
        yield experiment


@pytest.fixture
def broken(clean: Experiment, tmp_path: Path) -> tuple[Experiment, Store]:
    return copy_of(clean, tmp_path / "data")
