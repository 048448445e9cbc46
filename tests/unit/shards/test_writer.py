"""Finishing a part: digests, flags and moments are those of the rows, and nothing that is not finite is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from kubesae.errors import EXIT_FAULT, KubesaeError
from kubesae.experiment import sha256_hex
from kubesae.ledger import Plan
from kubesae.shards import CODECS, FinishedLayer, Moments, PartTar, codec, finish_layer, parse_block
from kubesae.shards.layout import END_OF_ARCHIVE
from kubesae.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(tokens=90, num_shards=1, context=10, contexts_per_part=5, contexts_per_block=2)
PART = PLAN.part(0, 1)
D_MODEL = 4


def finish(x: np.ndarray, dtype: str = "float32") -> FinishedLayer:
    blocks = PLAN.blocks(PART)
    tar = PartTar(blocks, [[]] * len(blocks), [b.start for b in blocks], layer=7, d_model=D_MODEL, codec=codec(dtype))
    at = 0
    for number, block in enumerate(blocks):
        tar.put(number, 0, torch.from_numpy(x[at : at + block.rows]))
        at += block.rows
    flags = np.zeros(len(x), np.uint8)
    flags[::10] = 1
    return finish_layer(tar, np.arange(len(x), dtype=np.uint32), flags, PART, 7)


def rows() -> np.ndarray:
    x = np.random.Generator(np.random.PCG64(0)).standard_normal((PART.rows, D_MODEL), np.float32)
    x[10] *= 1000  # flagged already, as a first position
    x[13] *= 1000
    return x


@pytest.mark.parametrize("dtype", list(CODECS))
def test_the_record_is_of_these_bytes(dtype: str, tmp_path: Path) -> None:
    finished = finish(rows(), dtype)
    record = finished.record
    assert record.sha256 == sha256_hex(finished.tar.tobytes())
    assert record.key == f"activations/layer-007/shard-0000/part-000001.{record.sha256[:12]}.tar"
    assert record.moments == f"activations/moments/layer-007/shard-0000/part-000001.{record.moments_sha256[:12]}.npz"
    assert record.bytes == finished.tar.nbytes
    assert record.flags == (4, 0, 2)
    assert len(record.blocks) == 2
    store = open_store(str(tmp_path))
    finished.upload(store)
    finished.upload(store)
    assert {key: info.size for key, info in store.list().items()} == {
        record.key: record.bytes,
        record.moments: len(finished.moments),
    }
    assert store.read(record.key) == finished.tar.tobytes()


def test_moments_are_of_unflagged_rows_and_norms_of_all() -> None:
    x = rows()
    moments = Moments.from_bytes(finish(x).moments, "here")
    kept = np.array([i for i in range(len(x)) if i % 10 and i != 13])
    assert (moments.rows, moments.count) == (40, 35)
    np.testing.assert_allclose(moments.mean, x[kept].astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, x[kept].astype(np.float64).var(axis=0), rtol=1e-9)
    assert moments.histogram.sum() == 40


@pytest.mark.parametrize("dtype", list(CODECS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(value: float, dtype: str) -> None:
    x = rows()
    x[33, 2] = value
    with pytest.raises(
        KubesaeError, match=r"Layer 7, shard 0, part 1: the activation of row 83 \(token 33\)"
    ) as caught:
        finish(x, dtype)
    assert caught.value.exit_code == EXIT_FAULT


def test_the_error_of_8_bits_is_that_of_the_unflagged_rows_in_units_of_their_variance() -> None:
    x = rows()
    finished = finish(x, "int8-block32")
    tar = memoryview(finished.tar)
    ends = [*finished.record.blocks[1:], len(tar) - END_OF_ARCHIVE]
    blocks = [parse_block(tar[start:end], "here") for start, end in zip(finished.record.blocks, ends, strict=True)]
    kept = np.concatenate([block.flags for block in blocks]) == 0
    stored = np.concatenate([block.float32() for block in blocks]).astype(np.float64)[kept]
    expected = ((stored - x[kept]) ** 2).sum() / ((stored - stored.mean(axis=0)) ** 2).sum()
    assert expected > 1e-6
    assert finished.record.storage_fvu == pytest.approx(expected, rel=1e-3)


def test_other_codecs_record_no_error_and_constant_rows_have_none() -> None:
    assert finish(rows()).record.storage_fvu is None
    assert finish(np.full((PART.rows, D_MODEL), 0.3, np.float32), "int8-block32").record.storage_fvu is None
