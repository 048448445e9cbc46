"""A small data set, and places where trainings on it are launched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae.store import open_store
from launched import Place
from small_experiment import write_small

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def launched_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small(store)
    return store.url


def placed(folder: Path, data: str) -> Iterator[Place]:
    folder.mkdir()
    place = Place(folder, data)
    yield place
    for launch in place.started:
        launch.end()


@pytest.fixture
def place(launched_data: str, tmp_path: Path) -> Iterator[Place]:
    yield from placed(tmp_path / "place", launched_data)


@pytest.fixture
def another(launched_data: str, tmp_path: Path) -> Iterator[Place]:
    yield from placed(tmp_path / "another", launched_data)
