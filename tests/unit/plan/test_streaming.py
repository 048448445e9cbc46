"""The streamed engine's numbers: both break-evens, the block, what hides what."""

from __future__ import annotations

import pytest

from kubesae.plan import Assumptions
from kubesae.plan.streaming import load_rate, stream
from planned import REFERENCE, machines_for, shape_of, work_for

# 300 TFLOP/s of an H100, as the paper figures of the reference experiment take it
ON_PAPER = Assumptions(matmul_share_moe=300 / 989)


def test_the_reference_experiment_is_as_on_paper():
    work = work_for("kimi-k2-thinking", **REFERENCE)
    machines = machines_for(work, matmul_share_moe=300 / 989)
    engine, streaming = stream(work, machines, ON_PAPER)
    assert streaming.load_seconds == pytest.approx(0.196, rel=0.01)  # 9.8 GB at 50 GB/s
    assert streaming.break_even_gpu == pytest.approx(59_000, rel=0.06)
    assert streaming.break_even_slot == pytest.approx(118_000, rel=0.06)
    assert streaming.block_tokens == 262_144  # "a block of 250,000 hides it"
    assert streaming.hidden_share == 1
    assert engine.fits
    assert engine.tokens_per_second == pytest.approx(12_600, rel=0.08)
    assert engine.bound_by == "compute"


@pytest.mark.parametrize("name", ["kimi-k2-thinking", "mixtral-8x7b", "llama-3-70b", "gpt2"])
@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_a_block_is_whole_parts_that_the_gpus_share_out_evenly(name, gpus):
    work = work_for(name)
    _, streaming = stream(work, machines_for(work, "h200", gpus), Assumptions())
    assert streaming.block_parts % gpus == 0
    assert streaming.block_tokens == streaming.block_parts * work.part_tokens
    assert streaming.break_even_gpu <= streaming.break_even_slot <= gpus * streaming.break_even_gpu
    assert streaming.block_tokens >= streaming.break_even_slot


def test_a_block_is_at_most_a_shard():
    work = work_for("kimi-k2-thinking", tokens=70_000, num_shards=2)
    _, streaming = stream(work, machines_for(work), Assumptions())
    assert streaming.block_tokens == 35_000
    assert streaming.hidden_share < 1


def test_hidden_states_go_to_host_memory_where_the_gpu_has_no_room():
    work = work_for("llama-3-70b")
    machines = machines_for(work, "a100-40gb")
    full = machines.gpu_bytes / 1e9
    free = full - stream(work, machines, Assumptions(reserve_gb=0))[0].gpu.needed / 1e9
    tight = Assumptions(reserve_gb=free + 0.2)
    engine, streaming = stream(work, machines, tight)
    assert engine.fits
    assert streaming.block_where == "pinned host memory"
    assert any(need.what == "hidden states" for need in engine.host.needs)


def test_weights_that_host_memory_does_not_hold_come_from_disk():
    work = work_for("kimi-k2-thinking", **REFERENCE)
    machines = machines_for(work)
    small = Assumptions(host_share=0.2)
    engine, streaming = stream(work, machines, small)
    assert streaming.load_from == "local disk"
    assert load_rate(machines, small, cached=False) == pytest.approx(16e9 / 4)  # four slots share the disks
    assert streaming.load_seconds == pytest.approx(9.8e9 / 4e9, rel=0.01)
    assert not any("page cache" in need.what for need in engine.host.needs)
    assert streaming.block_tokens > 262_144  # a larger block hides the slower loading


def test_what_does_not_fit_says_so():
    work = work_for("kimi-k2-thinking", **REFERENCE)
    engine, streaming = stream(work, machines_for(work, "l40s"), Assumptions())
    assert (engine.fits, streaming, engine.tokens_per_second) == (False, None, 0.0)


def test_layers_of_one_kind_have_one_ratio():
    layers = shape_of("qwen3-32b").layers
    assert len({(layer.whole.disk, layer.flops(2048)) for layer in layers}) == 1
