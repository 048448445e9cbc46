"""The edges of the plan: what is collected is exactly what was asked for, each row once, in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.ledger import Plan, chunk_edges, chunks_done, contiguous, keys, share_of


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    tokens = draw(st.integers(1, 3000))
    contexts_per_part = draw(st.integers(1, 9))
    return Plan(
        tokens=tokens,
        num_shards=draw(st.integers(1, min(tokens, 7))),
        context=draw(st.integers(2, 40)),
        contexts_per_part=contexts_per_part,
        contexts_per_block=draw(st.integers(1, contexts_per_part)),
    )


@given(plans())
def test_quotas_are_equal_shares_that_sum_to_the_tokens(plan: Plan) -> None:
    quotas = [plan.quota(shard) for shard in range(plan.num_shards)]
    assert sum(quotas) == plan.tokens
    assert quotas == sorted(quotas, reverse=True)
    assert quotas[0] - quotas[-1] <= 1


@given(plans())
def test_parts_tile_the_shards(plan: Plan) -> None:
    at = dict.fromkeys(range(plan.num_shards), 0)
    for part in plan.all_parts():
        assert part.start == at[part.shard] == part.first_context * plan.context
        assert part.start == plan.rows_before(part.shard, part.index)
        last = part.index == plan.parts(part.shard) - 1
        full = part.contexts == plan.contexts_per_part and part.rows == part.contexts * plan.context
        assert full or last
        assert 0 < part.rows <= part.contexts * plan.context
        assert part.rows > (part.contexts - 1) * plan.context
        at[part.shard] += part.rows
    assert at == {shard: plan.quota(shard) for shard in range(plan.num_shards)}


@given(plans())
def test_blocks_tile_the_parts_and_their_keys_are_unique(plan: Plan) -> None:
    seen = set()
    for part in plan.all_parts():
        at = part.start
        blocks = plan.blocks(part)
        for block in blocks:
            assert (block.shard, block.part, block.start) == (part.shard, part.index, at)
            assert block.rows == plan.contexts_per_block * plan.context or block is blocks[-1]
            assert "." not in block.key
            seen.add(block.key)
            at += block.rows
        assert at == part.start + part.rows
        assert [block.index for block in blocks] == list(range(len(blocks)))
    assert len(seen) == sum(len(plan.blocks(part)) for part in plan.all_parts())


@given(plans())
def test_global_rows_number_all_rows_without_a_gap(plan: Plan) -> None:
    rows = [(shard, row) for shard in range(plan.num_shards) for row in range(plan.quota(shard))]
    assert [plan.global_row(shard, row) for shard, row in rows] == list(range(plan.tokens))
    assert [plan.locate(row) for row in range(plan.tokens)] == rows


@given(plans())
def test_there_is_nothing_outside_the_plan(plan: Plan) -> None:
    for shard, index in ((plan.num_shards, 0), (-1, 0), (0, -1), (0, plan.parts(0))):
        with pytest.raises(IndexError):
            plan.part(shard, index)
    for row in (-1, plan.tokens):
        with pytest.raises(IndexError):
            plan.locate(row)


@given(plans(), st.integers(1, 4000))
def test_the_pilot_ends_at_the_first_part_edge_that_reaches_its_tokens(plan: Plan, tokens: int) -> None:
    parts = plan.pilot_parts(tokens)
    assert 1 <= parts <= plan.parts(0)
    assert plan.rows_before(0, parts) >= min(tokens, plan.quota(0))
    assert plan.rows_before(0, parts - 1) < tokens


@given(st.integers(1, 2000), st.integers(1, 500), st.data())
def test_chunks_count_up_to_the_total(total: int, chunk: int, data: st.DataObject) -> None:
    edges = chunk_edges(total, chunk)
    assert edges[-1] == total
    assert [b - a for a, b in zip([0, *edges], edges, strict=False)][:-1] == [chunk] * (len(edges) - 1)
    assert 0 < edges[-1] - (len(edges) - 1) * chunk <= chunk
    rows = data.draw(st.integers(0, total + 10))
    assert chunks_done(rows, total, chunk) == sum(rows >= edge for edge in edges)


@given(st.integers(0, 50), st.integers(1, 12))
def test_the_shares_of_all_workers_are_a_partition(units: int, of: int) -> None:
    shares = [list(share_of(units, index, of)) for index in range(of)]
    assert sorted(unit for share in shares for unit in share) == list(range(units))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.sets(st.integers(0, 12)))
def test_progress_is_what_is_there_before_the_first_gap(parts: set[int]) -> None:
    count = contiguous(parts)
    assert set(range(count)) <= parts
    assert count not in parts


@given(st.integers(0, 99_999), st.integers(0, 9_999_999))
def test_the_key_of_a_record_says_of_which_part_it_is(shard: int, part: int) -> None:
    assert keys.parse_record(keys.record(shard, part)) == (shard, part)
