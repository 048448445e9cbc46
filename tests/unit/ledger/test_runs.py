"""What a run was started with is kept beside the data, and says nothing of the machine."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import read_run, write_run
from kubesae.store import open_store
from small_experiment import small_experiment

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    """Give an empty store in a folder."""
    return open_store(str(tmp_path / "data"))


def test_no_local_path_is_stored(folder_store: Store, tmp_path: Path) -> None:
    experiment = small_experiment(
        folder_store.url,
        output=str(tmp_path / "output"),
        model=str(tmp_path / "models" / "tiny"),
        corpora=[
            {"name": "a", "source": str(tmp_path / "corpus" / "*.txt")},
            {"name": "b", "source": "some/dataset"},
        ],
    )
    write_run(folder_store, experiment)
    (key,) = folder_store.list()
    assert key.startswith("runs/small-")
    data = folder_store.read(key)
    assert str(tmp_path).encode() not in data
    values = json.loads(data)
    assert values["model"] == "tiny"
    assert [corpus["source"] for corpus in values["corpora"]] == ["*.txt", "some/dataset"]
    assert not {"data", "output"} & set(values)


def test_the_same_settings_are_recorded_once_wherever_they_lie(folder_store: Store, tmp_path: Path) -> None:
    write_run(folder_store, small_experiment(folder_store.url))
    write_run(folder_store, small_experiment(str(tmp_path / "elsewhere")))
    assert len(folder_store.list("runs/")) == 1
    write_run(folder_store, small_experiment(folder_store.url, seed=1))
    assert len(folder_store.list("runs/")) == 2


def test_the_newest_run_is_read_back_for_the_store_where_it_lies(folder_store: Store, tmp_path: Path) -> None:
    assert read_run(folder_store) is None
    for age, seed in ((10, 3), (0, 5), (20, 7)):
        write_run(folder_store, small_experiment("elsewhere", seed=seed))
        newest = max((tmp_path / "data" / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1_000_000_000 - age, 1_000_000_000 - age))
    assert read_run(folder_store) == small_experiment(folder_store.url, seed=5)


@pytest.mark.parametrize(("data", "error"), [(b"x", DamagedError), (b"{}", ConfigError)])
def test_a_damaged_run_is_said(folder_store: Store, data: bytes, error: type[Exception]) -> None:
    folder_store.put("runs/small-000000000000.json", data)
    with pytest.raises(error, match=r"runs/small-000000000000\.json"):
        read_run(folder_store)
