"""`kubesae.open_reader`: every block once an epoch, in an order by seed and epoch, from any position, bounded."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import kubesae
from kubesae.errors import ConfigError, DamagedError
from kubesae.shards import open_reader, read_index
from kubesae.store import open_store
from small_experiment import D_MODEL, write_small


@pytest.fixture
def folder(tmp_path):
    write_small(open_store(str(tmp_path)))
    return str(tmp_path)


def test_blocks_are_what_is_stored(store):
    identity = write_small(store)
    reader = kubesae.open_reader(store.url, 4, shuffle=False)
    assert list(reader.refs) == read_index(store, identity, 4)
    assert (len(reader), reader.rows, reader.d_model, reader.dtype) == (16, 1003, D_MODEL, "bfloat16")
    blocks = list(reader.blocks())
    assert [block.key for block in blocks] == [ref.key for ref in reader.refs]
    assert [block.row for block in blocks] == [ref.row for ref in reader.refs]
    assert all(block.float32().shape == (len(block.tokens), D_MODEL) for block in blocks)
    assert sum(run.tokens for block in blocks for run in block.documents()) == 1003


def keys(reader, epoch=0, position=0):
    return [block.key for block in reader.blocks(epoch, position)]


def test_an_epoch_is_a_permutation_by_seed_and_epoch_alone(folder):
    reader = kubesae.open_reader(folder, 4, seed=3)
    by_row = [ref.key for ref in reader.refs]
    orders = [keys(reader, 0), keys(reader, 1), keys(kubesae.open_reader(folder, 4, seed=4), 0)]
    assert all(sorted(order) == by_row for order in orders)
    assert len({tuple(order) for order in [by_row, *orders]}) == 4
    assert keys(kubesae.open_reader(folder, 4, seed=3, ahead=5), 1) == orders[1]
    assert [ref.key for ref in reader.order(1)] == orders[1]


def test_reading_goes_on_from_epoch_and_position(folder):
    reader = kubesae.open_reader(folder, 4)
    whole = keys(reader, 2)
    for position in (0, 1, 5, len(whole)):
        assert keys(reader, 2, position) == whole[position:]


def test_no_more_than_promised_is_read_ahead(folder, monkeypatch):
    read = []

    def count(store, ref):
        read.append(ref.key)
        return open_reader.parse(store, ref)

    monkeypatch.setattr(open_reader, "parse", open_reader.read_block, raising=False)
    monkeypatch.setattr(open_reader, "read_block", count)
    blocks = kubesae.open_reader(folder, 4, ahead=3).blocks()
    for taken in range(1, 6):
        next(blocks)
        assert len(read) <= taken + 3
    blocks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]
    assert len(read) < len(kubesae.open_reader(folder, 4))


def test_kept_blocks_are_not_overwritten(folder):
    kept = list(kubesae.open_reader(folder, 1).blocks())
    again = {block.key: block for block in kubesae.open_reader(folder, 1, shuffle=False).blocks()}
    assert all(np.array_equal(block.acts, again[block.key].acts) for block in kept)


def test_shards_can_be_chosen(folder):
    assert {key[:5] for key in keys(kubesae.open_reader(folder, 1, shards=[1]))} == {"s0001"}


def test_damage_is_named(folder):
    reader = kubesae.open_reader(folder, 1)
    ref = reader.order(0)[3]
    data = bytearray(reader.store.read(ref.tar))
    data[ref.offset] ^= 255
    reader.store.put(ref.tar, bytes(data))
    with pytest.raises(DamagedError, match=ref.tar):
        list(reader.blocks())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 3}, "Layer 3 was not collected"),
        ({"layer": 1, "shards": [7]}, r"no activations of shards \[7\] .* shards 0 to 1"),
        ({"layer": 1, "ahead": 0}, "ahead is 0"),
    ],
)
def test_what_cannot_be_read_is_said(folder, arguments, message):
    with pytest.raises(ConfigError, match=message):
        kubesae.open_reader(folder, **arguments)


def test_torch_is_not_needed(folder):
    code = f"""
import sys, kubesae
block = next(kubesae.open_reader({folder!r}, 4).blocks())
assert block.float32().ndim == 2
assert not {{"torch", "webdataset", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "jobs"})
