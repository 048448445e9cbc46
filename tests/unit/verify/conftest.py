"""A small experiment for each test to damage, copied from one that is written once."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from kubesae.store import open_store
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a small experiment, which is copied and never changed."""
    folder = tmp_path_factory.mktemp("verify")
    write_small(open_store(str(folder)))
    return folder


@pytest.fixture
def small(pristine: Path, tmp_path: Path) -> Store:
    """Give a store with a small experiment of its own."""
    shutil.copytree(pristine, tmp_path / "data")
    return open_store(str(tmp_path / "data"))
