"""`kubesae.open_webdataset`: a `webdataset` pipeline over a store, from a folder and from a real S3 server."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import webdataset as wds
from torch.utils.data import DataLoader

import kubesae
from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import keys
from kubesae.shards import read_block, read_index
from kubesae.verify import verify
from small_experiment import write_small

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.mark.parametrize("indexed", [False, True])
def test_samples_are_the_blocks_of_the_layer_in_row_order(store: Store, indexed: bool) -> None:  # noqa: FBT001
    identity = write_small(store)
    if indexed:
        assert verify(store, "all", "ledger", 200).passed
    assert store.exists(keys.INDEX) == indexed
    samples = list(kubesae.open_webdataset(store.url, 4))
    refs = read_index(store, identity, 4)
    assert [sample["__key__"] for sample in samples] == [ref.key for ref in refs]
    for sample, ref in zip(samples, refs, strict=True):
        block = read_block(store, ref)
        assert sample["__url__"] == f"{store.url}/{ref.tar}"
        assert np.array_equal(sample["acts.npy"], block.acts)
        assert np.array_equal(sample["tokens.npy"], block.tokens)
        assert np.array_equal(sample["flags.npy"], block.flags)
        assert sample["json"] == block.meta
    assert sum(len(sample["tokens.npy"]) for sample in samples) == 1003


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Give the prefix of a small experiment in a folder."""
    write_small(kubesae.open_store(str(tmp_path)))
    return str(tmp_path)


def test_shards_can_be_chosen_and_stages_composed(folder: str) -> None:
    pipeline = kubesae.open_webdataset(folder, 1, shards=[1])
    assert isinstance(pipeline, wds.DataPipeline)
    assert {sample["__key__"][:5] for sample in pipeline} == {"s0001"}
    counts = list(pipeline.compose(wds.map(lambda sample: len(sample["tokens.npy"]))))
    assert sum(counts) == 501
    assert len(list(pipeline)) == len(counts)  # a second epoch


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [2, 3])
def test_worker_processes_share_the_tars_without_overlap(folder: str, workers: int) -> None:
    expected = [sample["__key__"] for sample in kubesae.open_webdataset(folder, 1)]
    loader = DataLoader(
        kubesae.open_webdataset(folder, 1), batch_size=None, num_workers=workers, multiprocessing_context="fork"
    )
    found = [sample["__key__"] for sample in loader]
    assert sorted(found) == sorted(expected)


def test_ranks_share_the_tars_without_overlap(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = [sample["__key__"] for sample in kubesae.open_webdataset(folder, 1)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        found += [sample["__key__"] for sample in kubesae.open_webdataset(folder, 1)]
    assert sorted(found) == sorted(everything)


def test_a_damaged_tar_is_named(folder: str) -> None:
    store = kubesae.open_store(folder)
    tar = next(key for key in store.list(keys.layer_folder(1)))
    data = bytearray(store.read(tar))
    data[0] ^= 255
    store.put(tar, bytes(data))
    with pytest.raises(DamagedError, match=tar):
        list(kubesae.open_webdataset(folder, 1))


def test_what_is_not_there_is_said(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Layer 3 was not collected .* it has layers \[1, 4\]"):
        kubesae.open_webdataset(folder, 3)
    with pytest.raises(ConfigError, match=r"no activations of shards \[7\]"):
        kubesae.open_webdataset(folder, 1, shards=[7])
    with pytest.raises(ConfigError, match="No activations have been collected at"):
        kubesae.open_webdataset(str(tmp_path / "nothing"), 1)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = """
import sys, kubesae
assert {"load_sae", "open_store", "open_webdataset"} <= set(dir(kubesae))
assert not {"torch", "numpy", "pydantic", "yaml", "fsspec", "webdataset"} & set(sys.modules), sorted(sys.modules)
kubesae.open_store
assert "torch" not in sys.modules
try:
    kubesae.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise SystemExit("no AttributeError")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "jobs"})


def test_an_sae_is_loaded_by_its_public_name() -> None:
    from kubesae.sae import load_sae

    assert kubesae.load_sae is load_sae
