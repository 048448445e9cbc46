"""Two small corpora and an empty store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kubesae.store import open_store
from preparing import UNITS
from tiny_models import save_tokenizer, text

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a tokenizer (`tiny`) and two corpora: `rows`, four JSON lines files, and `files`, text."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "tiny").mkdir()
    save_tokenizer(folder / "tiny")
    (folder / "rows").mkdir()
    for unit in range(UNITS):
        lines = [json.dumps({"text": text(20 * unit + i)}) + "\n" for i in range(8)]
        (folder / "rows" / f"{unit}.jsonl").write_text("".join(lines))
    (folder / "files").mkdir()
    for i in range(10):
        (folder / "files" / f"{i}.txt").write_text(f"file {i}: {text(100 + i)}")
    return folder


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """Give an empty store in a folder."""
    return open_store(str(tmp_path / "data"))
