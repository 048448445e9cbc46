"""Batches: every unflagged row once an epoch, the same for any number of ranks and from any position on."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from kubesae.errors import MissingError
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from kubesae.train.reader import BlockSource, Reader
from kubesae.train.windows import windows_of
from small_experiment import D_MODEL, write_small
from thread_ranks import ALONE, run_ranks

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.shards import BlockRef
    from kubesae.store import Store
    from kubesae.train.distributed import Ranks

LAYER = 4
BATCH, SHUFFLE = 60, 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small(store)
    return store


@pytest.fixture(scope="module")
def refs(data: Store) -> list[BlockRef]:
    from kubesae.ledger import read_identity

    return read_index(data, read_identity(data), LAYER)


def epoch(
    data: Store,
    refs: list[BlockRef],
    *,
    number: int = 0,
    position: int = 0,
    world: int = 1,
    seed: int = 5,
    batch: int = BATCH,
) -> list[list[tuple[float, ...]]]:
    """The rows of each batch, of all ranks together, in some order of their own."""

    def work(ranks: Ranks) -> list[tuple[torch.Tensor, int, int]]:
        with BlockSource(data, "bfloat16", D_MODEL, workers=2) as source:
            reader = Reader(source, refs, shuffle_rows=SHUFFLE, batch_size=batch, seed=seed, ranks=ranks)
            return [(b.x_BD.float(), b.total_rows, b.position) for b in reader.batches(number, position)]

    batches = []
    for shares in zip(*run_ranks(world, work), strict=True):
        rows = torch.cat([share[0] for share in shares])
        assert {share[1] for share in shares} == {len(rows)}
        batches.append(sorted(map(tuple, rows.tolist())))
    return batches


def unflagged(data: Store, refs: list[BlockRef]) -> list[tuple[float, ...]]:
    blocks = [read_block(data, ref) for ref in refs]
    return sorted(tuple(row) for block in blocks for row in block.float32()[block.flags == 0].tolist())


def test_an_epoch_has_every_unflagged_row_once(data: Store, refs: list[BlockRef]) -> None:
    batches = epoch(data, refs)
    assert sorted(row for batch in batches for row in batch) == unflagged(data, refs)
    assert len(unflagged(data, refs)) < sum(ref.rows for ref in refs)


def test_batches_are_full_but_for_flagged_rows(data: Store, refs: list[BlockRef]) -> None:
    sizes = [len(batch) for batch in epoch(data, refs)]
    assert max(sizes) <= BATCH
    assert min(sizes) > BATCH / 2


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7])
def test_small_batches_of_small_blocks_may_be_larger_than_asked_for(
    data: Store, refs: list[BlockRef], batch: int
) -> None:
    """A block with fewer rows than there are batches gives a row to some: where few are flagged, some get too many."""
    batches = epoch(data, refs, batch=batch)
    assert sorted(row for rows in batches for row in rows) == unflagged(data, refs)
    assert max(map(len, batches)) > batch


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_take_the_same_batches_apart(data: Store, refs: list[BlockRef], world: int) -> None:
    assert epoch(data, refs, world=world) == epoch(data, refs)


def test_any_position_goes_on_with_the_same_batches(data: Store, refs: list[BlockRef]) -> None:
    whole = epoch(data, refs)
    for position in range(len(whole) + 1):
        assert epoch(data, refs, position=position) == whole[position:]


def test_seed_and_epoch_change_the_order(data: Store, refs: list[BlockRef]) -> None:
    first = epoch(data, refs)
    assert epoch(data, refs) == first
    assert epoch(data, refs, number=1) != first
    assert epoch(data, refs, seed=6) != first


def test_every_batch_mixes_the_blocks_of_its_window(data: Store, refs: list[BlockRef]) -> None:
    home = {row: i for i, ref in enumerate(refs) for row in unflagged(data, [ref])}
    batches = epoch(data, refs)
    for window in windows_of(refs, SHUFFLE, BATCH, 5, 0):
        wanted = {refs.index(ref) for ref in window.refs}
        for batch in batches[window.first : window.first + window.batches]:
            assert {home[row] for row in batch} == wanted


def test_windows_hold_every_block_once(refs: list[BlockRef]) -> None:
    for number in range(3):
        windows = windows_of(refs, SHUFFLE, BATCH, 5, number)
        assert sorted(ref for window in windows for ref in window.refs) == sorted(refs)
        assert [window.first for window in windows] == np.cumsum([0, *(w.batches for w in windows)])[:-1].tolist()
        assert all(sum(ref.rows for ref in window.refs) >= SHUFFLE / 2 for window in windows)


def test_one_window_may_hold_all(data: Store, refs: list[BlockRef]) -> None:
    assert len(windows_of(refs, 10**6, BATCH, 5, 0)) == 1
    assert windows_of([], SHUFFLE, BATCH, 5, 0) == []


def test_blocks_give_unflagged_rows_in_order(data: Store, refs: list[BlockRef]) -> None:
    with BlockSource(data, "bfloat16", D_MODEL, workers=1) as source:
        for ref, rows in zip(refs, source.blocks(refs), strict=True):
            block = read_block(data, ref)
            np.testing.assert_array_equal(rows.float().numpy(), block.float32()[block.flags == 0])
        assert list(source.blocks([])) == []


@pytest.mark.parametrize(("storage", "taken"), [("float32", torch.float32), ("int8-block32", torch.bfloat16)])
def test_other_storage(tmp_path: Path, storage: str, taken: torch.dtype) -> None:
    store = open_store(str(tmp_path))
    identity = write_small(store, storage=storage)
    refs = read_index(store, identity, LAYER)
    with BlockSource(store, storage, D_MODEL, workers=1) as source:
        reader = Reader(source, refs, shuffle_rows=SHUFFLE, batch_size=BATCH, seed=0, ranks=ALONE)
        rows = torch.cat([batch.x_BD.clone() for batch in reader.batches(0, 0)])
    assert rows.dtype == taken
    assert sorted(map(tuple, rows.tolist())) == unflagged(store, refs)


def test_an_epoch_that_is_left_does_not_write_into_the_next(data: Store, refs: list[BlockRef]) -> None:
    with BlockSource(data, "bfloat16", D_MODEL, workers=2) as source:
        reader = Reader(source, refs, shuffle_rows=SHUFFLE, batch_size=BATCH, seed=5, ranks=ALONE)
        for _ in range(3):
            left = reader.batches(1, 0)
            next(left)
            left.close()
            rows = [sorted(map(tuple, batch.x_BD.float().tolist())) for batch in reader.batches(0, 0)]
            assert rows == epoch(data, refs)


def test_a_batch_is_whole_until_the_next_is_asked_for(data: Store, refs: list[BlockRef]) -> None:
    """The thread that is ahead writes elsewhere, and what is read next lies elsewhere too."""
    with BlockSource(data, "bfloat16", D_MODEL, workers=2) as source:
        reader = Reader(source, refs, shuffle_rows=SHUFFLE, batch_size=BATCH, seed=5, ranks=ALONE)
        for batch in reader.batches(0, 0):
            before = batch.x_BD.clone()
            time.sleep(0.002)
            assert torch.equal(batch.x_BD, before)


def test_an_epoch_that_is_left_early_spoils_no_other(data: Store, refs: list[BlockRef]) -> None:
    with BlockSource(data, "bfloat16", D_MODEL, workers=2) as source:
        reader = Reader(source, refs, shuffle_rows=SHUFFLE, batch_size=BATCH, seed=5, ranks=ALONE)
        whole = [batch.x_BD.clone() for batch in reader.batches(1, 0)]
        for taken in range(6):
            left = reader.batches(0, 0)
            for _ in range(taken):
                next(left)
            left.close()
            assert all(map(torch.equal, (batch.x_BD.clone() for batch in reader.batches(1, 0)), whole))


def test_a_read_that_fails_ends_the_epoch_with_its_error(data: Store, refs: list[BlockRef]) -> None:
    lost = [*refs[:-1], dataclasses.replace(refs[-1], tar="activations/none.tar")]
    with BlockSource(data, "bfloat16", D_MODEL, workers=2) as source:
        reader = Reader(source, lost, shuffle_rows=SHUFFLE, batch_size=BATCH, seed=5, ranks=ALONE)
        with pytest.raises(MissingError):
            list(reader.batches(0, 0))


@pytest.mark.parametrize(("world", "shards"), [(2, 2), (4, 2)])
def test_ranks_that_share_out_the_features_take_the_same_rows(
    data: Store, refs: list[BlockRef], world: int, shards: int
) -> None:
    def work(ranks: Ranks) -> list[tuple[torch.Tensor, int, int]]:
        with BlockSource(data, "bfloat16", D_MODEL, workers=2) as source:
            reader = Reader(source, refs, shuffle_rows=SHUFFLE, batch_size=BATCH, seed=5, ranks=ranks.data)
            return [(b.x_BD.clone(), b.total_rows, b.position) for b in reader.batches(0, 0)]

    expected = run_ranks(world // shards, work)
    for rank, batches in enumerate(run_ranks(world, work, shards)):
        for (mine, *numbers), (theirs, *wanted) in zip(batches, expected[rank // shards], strict=True):
            assert torch.equal(mine, theirs)
            assert numbers == wanted
