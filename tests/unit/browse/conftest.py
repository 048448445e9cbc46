"""A store with the page of a small interpretation, written once: read it, or copy it to change it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from kubesae.browse.page import write_page
from kubesae.store import Store, open_store
from paged import write_paged

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.features import Stored


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Stored]:
    store = open_store(str(tmp_path_factory.mktemp("paged") / "store"))
    stored = write_paged(store)
    write_page(store, store, stored)
    return store, stored


@pytest.fixture
def copied(written: tuple[Store, Stored], tmp_path: Path) -> tuple[Store, Stored]:
    shutil.copytree(written[0].url, tmp_path / "store")
    return open_store(str(tmp_path / "store")), written[1]
