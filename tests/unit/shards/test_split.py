"""Which blocks are validated on."""

from __future__ import annotations

import hashlib

import pytest

from kubesae.errors import ConfigError
from kubesae.shards import BlockRef
from kubesae.shards.split import split_blocks

IDENTITY = "ab" * 32


def blocks(count: int, rows: int = 10) -> list[BlockRef]:
    return [
        BlockRef(
            layer=1,
            row=rows * i,
            rows=rows,
            shard=0,
            part=i,
            block=0,
            key=f"s0000-p{i:06d}-b0000",
            tar=f"{i}.tar",
            offset=0,
            bytes=1024,
        )
        for i in range(count)
    ]  # fmt: skip


def by_hash(refs: list[BlockRef]) -> list[BlockRef]:
    return sorted(refs, key=lambda ref: hashlib.sha256(f"{IDENTITY}/{ref.key}".encode()).hexdigest())


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(100, 0.02, 2), (101, 0.02, 3), (1000, 0.02, 20), (50, 0.5, 25)]
)
def test_validation_is_the_smallest_hashes(count: int, share: float, expected: int) -> None:
    refs = blocks(count)
    split = split_blocks(refs, IDENTITY, share)
    assert set(split.validation) == set(by_hash(refs)[:expected])
    assert sorted((*split.validation, *split.train)) == refs
    assert (split.validation_rows, split.train_rows) == (10 * expected, 10 * (count - expected))


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_at_least_two_blocks_are_kept(share: float) -> None:
    assert len(split_blocks(blocks(10), IDENTITY, share).validation) == 2


def test_the_order_of_the_index_does_not_matter() -> None:
    refs = blocks(40)
    assert split_blocks(refs[::-1], IDENTITY, 0.1) == split_blocks(refs, IDENTITY, 0.1)


def test_other_data_splits_differently() -> None:
    refs = blocks(100)
    assert split_blocks(refs, IDENTITY, 0.1) != split_blocks(refs, "cd" * 32, 0.1)


def test_a_short_run_never_trains_on_the_full_runs_validation() -> None:
    refs = blocks(1000)
    full = split_blocks(refs, IDENTITY, 0.02)
    for tokens in (31, 500, 5_000, 9_000):
        short = split_blocks(refs, IDENTITY, 0.02, max_tokens=tokens)
        assert set(short.validation) <= set(full.validation)
        assert not set(short.train) & set(full.validation)
        assert tokens <= short.train_rows + short.validation_rows < tokens + 10


def test_max_tokens_beyond_the_data_is_all_of_it() -> None:
    refs = blocks(100)
    assert split_blocks(refs, IDENTITY, 0.02, max_tokens=10**9) == split_blocks(refs, IDENTITY, 0.02)


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 blocks are too few"):
        split_blocks(blocks(2), IDENTITY, 0.02)
