"""A small data set, and where trainings on it write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae.store import Store, open_store
from small_experiment import write_small
from small_training import Training

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small(store)
    return store


@pytest.fixture
def training(small_data: Store, tmp_path: Path) -> Training:
    return Training(small_data, open_store(str(tmp_path / "first")))


@pytest.fixture
def another(small_data: Store, tmp_path: Path) -> Training:
    return Training(small_data, open_store(str(tmp_path / "second")))
