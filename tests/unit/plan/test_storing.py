"""Bytes, objects and requests, against what the ledger's plan and the writer really make."""

from __future__ import annotations

import pytest

from kubesae.ledger import Plan
from kubesae.plan.storing import kinds_of_parts, stored, tar_bytes
from kubesae.shards import CODECS
from kubesae.store import open_store
from planned import REFERENCE, planned, work_for
from small_experiment import D_MODEL, write_small


@pytest.mark.parametrize("storage", list(CODECS))
def test_tars_have_the_size_that_is_planned(tmp_path, storage):
    store = open_store(str(tmp_path))
    identity = write_small(store, storage=storage)
    plan = Plan.of(identity)
    sizes = {key: info.size for key, info in store.list("activations/layer-").items() if key.endswith(".tar")}
    assert len(sizes) == 2 * sum(plan.parts(shard) for shard in range(2))
    for part in plan.all_parts():
        name = f"shard-{part.shard:04d}/part-{part.index:06d}."
        found = {size for key, size in sizes.items() if name in key}
        assert found == {tar_bytes(plan, part, D_MODEL, storage)}


def test_parts_by_kind_are_all_parts():
    for tokens, shards in ((1003, 2), (5000, 3), (17, 4)):
        plan = Plan(tokens=tokens, num_shards=shards, context=16, contexts_per_part=12, contexts_per_block=5)
        rows = [part.rows for part in plan.all_parts()]
        found = list(kinds_of_parts(plan))
        assert sum(count for _, count in found) == len(rows)
        assert sum(part.rows * count for part, count in found) == sum(rows) == tokens


def test_the_reference_experiment_is_14_tb():
    data = planned("kimi-k2-thinking", **REFERENCE).data
    assert data.activation_bytes == 1_000_000_000 * 7168 * 2
    assert data.stored_bytes == pytest.approx(data.activation_bytes, rel=0.002)
    assert data.pilot_bytes == pytest.approx(143e9, rel=0.01)  # not 1.4 GB
    assert data.read_bytes == 3 * data.activation_bytes


def test_8_bits_are_half_of_it_to_store_and_to_read():
    half, whole = (planned("kimi-k2-thinking", **REFERENCE, storage=name).data for name in ("int8-block32", "bfloat16"))
    assert half.bytes_per_token == 7168 + 7168 // 32
    for name in ("activation_bytes", "stored_bytes", "read_bytes", "pilot_bytes"):
        assert getattr(half, name) <= 0.52 * getattr(whole, name)


def test_saes_that_want_the_same_rows_share_one_reading():
    one = stored(work_for("gpt2", sae=[{}]), 0).read_bytes
    alike = [{"name": "a"}, {"name": "b", "expansion": 16}, {"name": "c", "seed": 3}]
    assert stored(work_for("gpt2", sae=alike), 0).read_bytes == one
    others = [{"name": "a"}, {"name": "b", "order_seed": 1}, {"name": "c", "epochs": 1}]
    assert stored(work_for("gpt2", sae=others), 0).read_bytes == one + one + one / 3


def test_layers_share_tokens_and_records():
    one, two = (stored(work_for("gpt2", layers=layers), 0) for layers in ([6], [5, 6]))
    assert two.activation_bytes == 2 * one.activation_bytes
    parts = sum(count for _, count in kinds_of_parts(work_for("gpt2").plan))
    assert two.objects - one.objects == 2 * parts + 1  # tars, moments; the list of URLs
