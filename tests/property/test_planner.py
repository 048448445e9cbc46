"""The planner is monotone: more work never takes less of anything, better machines never more time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.ledger import Plan
from kubesae.plan import Assumptions, plan_work
from kubesae.plan.memory import fullest
from kubesae.plan.shape import Attention
from planned import PRICES, planned, work_for

NAMES = st.sampled_from(["gpt2", "gemma-2-9b", "mixtral-8x7b", "kimi-k2-thinking"])
TOKENS = st.integers(10_000, 3_000_000_000)
SHARDS = st.integers(1, 12)


@given(NAMES, TOKENS, TOKENS, SHARDS, st.sampled_from(["resident", "streamed"]))
def test_more_tokens_never_cost_less(name: str, one: int, other: int, shards: int, engine: str) -> None:
    few, many = (planned(name, tokens=tokens, num_shards=shards, engine=engine) for tokens in sorted((one, other)))
    assert few.data.stored_bytes <= many.data.stored_bytes
    assert few.data.objects <= many.data.objects
    assert few.data.write_requests <= many.data.write_requests
    assert few.trainings[0].seconds <= many.trainings[0].seconds
    for small, large in zip(few.costs[1:], many.costs[1:], strict=True):
        assert small.on_demand <= large.on_demand + 1e-9
    # a small shard has a small block, which streams more slowly, but never so much that all of it takes longer
    assert few.collection.seconds <= many.collection.seconds * 1.0001


@given(NAMES, TOKENS, SHARDS)
def test_bytes_and_parts_are_those_of_the_ledger(name: str, tokens: int, shards: int) -> None:
    report = planned(name, tokens=tokens, num_shards=shards)
    plan = Plan.of(work_for(name, tokens=tokens, num_shards=shards).experiment)
    assert report.collection.parts == sum(plan.parts(shard) for shard in range(shards))
    rows = sum(plan.quota(shard) for shard in range(shards))
    assert report.data.activation_bytes == rows * report.model.d_model * 2
    assert report.data.stored_bytes > report.data.activation_bytes


@given(NAMES, st.data())
def test_deeper_layers_never_take_less(name: str, data: st.DataObject) -> None:
    depth = work_for(name).shape.depth
    shallow, deep = sorted(data.draw(st.lists(st.integers(0, depth - 1), min_size=2, max_size=2)))
    one, other = (planned(name, layers=[layer]) for layer in (shallow, deep))
    assert one.model.loaded_bytes <= other.model.loaded_bytes
    assert one.model.flops_per_token <= other.model.flops_per_token
    for engine, deeper in zip(one.engines, other.engines, strict=True):
        assert engine.gpu.needed <= deeper.gpu.needed * 1.0001 or engine.name == "streamed"


@given(
    st.sampled_from(["matmul_share_dense", "matmul_share_moe", "upload_gb_s", "page_cache_gb_s"]),
    st.floats(0.05, 0.5),
    st.floats(0.05, 0.5),
)
def test_faster_parts_never_take_more_time(assumption: str, one: float, other: float) -> None:
    work = work_for("mixtral-8x7b")
    slow, fast = (
        plan_work(work, PRICES, Assumptions(**{assumption: value}), engine="streamed") for value in sorted((one, other))
    )
    assert fast.collection.seconds <= slow.collection.seconds * 1.02  # blocks are whole parts: hiding comes in steps


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 6))
def test_the_fullest_gpu_is_the_least_that_goes(pieces: list[int], bins: int) -> None:
    def possible(room: int) -> bool:
        used, left = 1, room
        for piece in pieces:
            if piece > left:
                used, left = used + 1, room
            left -= piece
        return used <= bins

    found = fullest(pieces, bins)
    assert possible(found)
    assert found == max(pieces) or not possible(found - 1)


@given(st.integers(1, 200), st.none() | st.integers(1, 250), st.booleans())
def test_keys_are_counted_query_by_query(context: int, window: int | None, causal: bool) -> None:  # noqa: FBT001
    attention = Attention(heads=1, qk_width=1, v_width=1, window=window, causal=causal)
    seen: list[Any] = [min(i + 1, window or context) if causal else context for i in range(context)]
    assert attention.keys(context) == pytest.approx(sum(seen) / context)
