"""Other people's programs read our tars as they are: `webdataset`, GNU tar with numpy, the standard library."""

from __future__ import annotations

import gc
import json
import subprocess
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import webdataset as wds

import kubesae
from kubesae.fixture import write_fixture
from kubesae.shards import BlockData, read_block, read_index
from kubesae.shards.webdataset import float32_of
from kubesae.store import open_store
from small_experiment import D_MODEL, small_experiment, write_small

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LAYER = 4


@pytest.fixture(scope="module")
def tar_and_blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[BlockData]]:
    """Give one tar of a small experiment and its blocks, read by ourselves."""
    folder = tmp_path_factory.mktemp("interop")
    store = open_store(str(folder))
    refs = read_index(store, write_small(store), LAYER)
    tar = refs[0].tar
    return folder / tar, [read_block(store, ref) for ref in refs if ref.tar == tar]


def read_all(pipeline: Iterable[Any]) -> list[Any]:
    """Return all samples; webdataset leaves its files to the garbage collector, which must not count against us."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        samples = list(pipeline)
        gc.collect()
    return samples


def test_webdataset_decodes_every_block(tar_and_blocks: tuple[Path, list[BlockData]]) -> None:
    tar, blocks = tar_and_blocks
    samples = read_all(wds.WebDataset(str(tar), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == [block.key for block in blocks]
    for sample, block in zip(samples, blocks, strict=True):
        acts = torch.from_numpy(sample["acts.npy"]).view(torch.bfloat16)
        assert acts.shape == (len(block.tokens), D_MODEL)
        assert np.array_equal(acts.float().numpy(), block.float32())
        assert np.array_equal(sample["tokens.npy"], block.tokens)
        assert np.array_equal(sample["flags.npy"], block.flags)
        assert sample["json"] == block.meta
        assert sample["json"]["dtype"] == "bfloat16"


def test_webdataset_and_numpy_give_the_float32_of_8_bits(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    experiment = small_experiment(store.url, storage="int8-block32")
    identity = write_fixture(experiment, store, 70, 32)  # two blocks of 32 and one of 6
    refs = read_index(store, identity, LAYER)
    samples = [
        sample
        for tar in dict.fromkeys(ref.tar for ref in refs)
        for sample in read_all(wds.WebDataset(str(tmp_path / tar), shardshuffle=False).decode())
    ]
    ours = list(kubesae.open_webdataset(store.url, LAYER))
    for ref, sample, own in zip(refs, samples, ours, strict=True):
        steps, exponents = sample["acts.npy"], sample["exponents.npy"]
        assert (steps.dtype, exponents.dtype, exponents.shape) == (np.int8, np.int8, (ref.rows, 3))
        found = np.ldexp(steps.astype(np.float32), np.repeat(exponents, 32, axis=1)[:, :70])
        block = read_block(store, ref)
        assert block.float32().tobytes() == found.tobytes()
        assert float32_of(sample).tobytes() == float32_of(own).tobytes() == found.tobytes()
        assert np.array_equal(own["exponents.npy"], exponents)
        assert (sample["json"]["dtype"], sample["__key__"]) == ("int8-block32", ref.key)


def test_webdataset_gives_tuples_by_ending(tar_and_blocks: tuple[Path, list[BlockData]]) -> None:
    tar, blocks = tar_and_blocks
    pairs = read_all(wds.WebDataset(str(tar), shardshuffle=False).decode().to_tuple("acts.npy", "tokens.npy"))
    assert [(len(acts), len(tokens)) for acts, tokens in pairs] == [(80, 80), (80, 80), (32, 32)]
    assert np.array_equal(pairs[2][0], blocks[2].acts)


def test_our_own_pipeline_gives_the_same_samples(tar_and_blocks: tuple[Path, list[BlockData]]) -> None:
    tar, _ = tar_and_blocks
    ours = [s for s in kubesae.open_webdataset(str(tar.parents[3]), LAYER, shards=[0]) if s["__url__"] == str(tar)]
    theirs = read_all(wds.WebDataset(str(tar), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in ours] == [sample["__key__"] for sample in theirs]
    for sample, other in zip(ours, theirs, strict=True):
        assert sample.keys() <= other.keys()
        assert sample["json"] == other["json"]
        for name in ("acts.npy", "tokens.npy", "flags.npy"):
            assert sample[name].dtype == other[name].dtype
            assert np.array_equal(sample[name], other[name])


def test_gnu_tar_lists_and_unpacks_it(tar_and_blocks: tuple[Path, list[BlockData]], tmp_path: Path) -> None:
    tar, blocks = tar_and_blocks
    done = subprocess.run(["tar", "tvf", tar], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 4 * len(blocks)
    assert lines[0].split()[:2] == ["-rw-r--r--", "0/0"]
    assert lines[0].split()[-1] == "s0000-p000000-b0000.acts.npy"

    done = subprocess.run(["tar", "xf", tar, "-C", tmp_path], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    for block in blocks:
        for name in ("acts", "tokens", "flags"):
            array = np.load(tmp_path / f"{block.key}.{name}.npy", allow_pickle=False)
            assert np.array_equal(array, getattr(block, name))
        assert json.loads((tmp_path / f"{block.key}.json").read_text()) == block.meta


def test_the_standard_library_streams_it(tar_and_blocks: tuple[Path, list[BlockData]]) -> None:
    tar, blocks = tar_and_blocks
    with tarfile.open(tar, mode="r|") as archive:
        names = [member.name for member in archive]
    assert names == [
        f"{block.key}.{end}" for block in blocks for end in ("acts.npy", "tokens.npy", "flags.npy", "json")
    ]
