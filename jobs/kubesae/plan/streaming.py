"""The streamed engine in numbers: both break-evens, the block that hides loading behind computing, its speed.

Layer-major: a block of tokens passes a layer while the next one loads, so a block takes the sum over layers of the
longer of the two. One reading of the weights serves all GPUs of a slot, which share out the block's parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.plan import memory as needs
from kubesae.plan.prices import GB
from kubesae.plan.report import Engine, Streaming
from kubesae.plan.storing import upload_rate

if TYPE_CHECKING:
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.report import Memory
    from kubesae.plan.shape import Layer
    from kubesae.plan.work import Machines, Work


@dataclass(frozen=True)
class _Block:
    """A block, where its hidden states lie, and the memory that goes with it."""

    tokens: int
    on_gpu: float
    on_host: float
    gpu: Memory
    host: Memory


def stream(work: Work, machines: Machines, assumptions: Assumptions) -> tuple[Engine, Streaming | None]:
    """Return the streamed engine, and how it goes through the model (None where not one layer fits)."""
    disk = needs.disk(work, machines)
    cached = needs.is_cached(needs.streamed_host(work, machines, assumptions, 0.0))
    rate = load_rate(machines, assumptions, cached=cached)
    slowest = max(range(work.depth), key=lambda index: _ratio(work, machines, index, rate))
    layer = work.shape.layers[slowest]
    even = layer.whole.disk / rate / token_seconds(work, machines, layer)
    block = _pick(work, machines, assumptions, assumptions.block_margin * even * machines.gpus)
    if not (block.gpu.fits and block.host.fits and disk.fits):
        return _engine(work, machines, block, disk, 0.0, "memory"), None
    cached = needs.is_cached(block.host)
    rate = load_rate(machines, assumptions, cached=cached)
    computing, loading, spent = _times(work, machines, block, rate)
    speed, limit = block.tokens / spent, upload_rate(work, assumptions)
    bound = "upload" if limit < speed else "loading" if spent > 1.02 * sum(computing) else "compute"
    seen = sum(min(compute, load) for compute, load in zip(computing, loading, strict=True))
    streaming = Streaming(
        layer=slowest,
        load_seconds=loading[slowest],
        load_from="host memory (page cache)" if cached else "local disk",
        break_even_gpu=math.ceil(even),
        break_even_slot=math.ceil(even * machines.gpus),
        block_tokens=block.tokens,
        block_parts=-(-block.tokens // work.part_tokens),
        block_where="pinned host memory" if block.on_host else "GPU",
        block_bytes=int(block.tokens * hidden_bytes(work)),
        compute_seconds=computing[slowest],
        hidden_share=seen / sum(loading),
    )
    return _engine(work, machines, block, disk, min(speed, limit), bound), streaming


def load_rate(machines: Machines, assumptions: Assumptions, *, cached: bool) -> float:
    """Return bytes a second at which a slot loads weights: the slowest of disk, page cache and PCIe."""
    fastest = min(assumptions.page_cache_gb_s, machines.node.host_to_gpu_gb_s)
    shared = machines.node.disk_gb_s / machines.slots_per_node
    return GB * (fastest if cached else min(fastest, shared))


def token_seconds(work: Work, machines: Machines, layer: Layer) -> float:
    """Return seconds in which one GPU passes one token through a layer."""
    return layer.flops(work.experiment.context) / machines.model_flops


def hidden_bytes(work: Work) -> int:
    """Return bytes of a token's hidden state."""
    return work.shape.d_model * work.itemsize


def _ratio(work: Work, machines: Machines, index: int, rate: float) -> float:
    layer = work.shape.layers[index]
    return layer.whole.disk / rate / token_seconds(work, machines, layer)


def _pick(work: Work, machines: Machines, assumptions: Assumptions, wanted: float) -> _Block:
    """Return the smallest block of whole parts with `wanted` tokens that fits, else the largest that does.

    Every GPU of the slot has the same number of parts. A block is not larger than a shard.
    """
    unit = work.part_tokens * machines.gpus
    most = max(1, -(-work.plan.quota(0) // unit))
    units = min(most, max(1, math.ceil(wanted / unit)))
    while True:
        tokens = min(units * unit, work.plan.quota(0))
        for on_host in (False, True):
            block = _laid_out(work, machines, assumptions, tokens, on_host=on_host)
            if block.gpu.fits and block.host.fits:
                return block
        if units == 1:
            return block
        units = max(1, units * 3 // 4)


def _laid_out(work: Work, machines: Machines, assumptions: Assumptions, tokens: int, *, on_host: bool) -> _Block:
    size = float(tokens * hidden_bytes(work))
    share = 0.0 if on_host else size / machines.gpus
    kept = size if on_host else 0.0
    gpu = needs.streamed_gpu(work, machines, assumptions, share)
    return _Block(tokens, share, kept, gpu, needs.streamed_host(work, machines, assumptions, kept))


def _times(work: Work, machines: Machines, block: _Block, rate: float) -> tuple[list[float], list[float], float]:
    """Return seconds of computing and of loading of each layer, and of a block in all."""
    expanding = 3.0 / (machines.node.memory_gb_s * GB)  # seconds a byte: read packed, write and read expanded
    over = machines.node.host_to_gpu_gb_s * GB
    moved = 2 * block.on_host / machines.gpus / over  # hidden states, there and back
    parts = -(-block.tokens // work.part_tokens)
    largest = min(block.tokens, -(-parts // machines.gpus) * work.part_tokens)  # the share of the GPU with most of it
    computing, loading = [], []
    for layer in work.shape.layers[: work.depth]:
        compute = largest * token_seconds(work, machines, layer)
        computing.append(compute + layer.whole.packed * work.itemsize * expanding)
        loading.append(max(layer.whole.disk / rate, layer.whole.disk / over + moved))
    # the embeddings are looked up in host memory; while the last layer computes, the next block's first one loads
    return computing, loading, sum(max(pair) for pair in zip(computing, loading, strict=True))


def _engine(work: Work, machines: Machines, block: _Block, disk: Memory, speed: float, bound: str) -> Engine:
    busy = min(machines.gpus, -(-block.tokens // work.part_tokens))
    fits = block.gpu.fits and block.host.fits and disk.fits
    return Engine(
        name="streamed",
        fits=fits,
        gpu=block.gpu,
        host=block.host,
        disk=disk,
        tokens_per_second=speed,
        bound_by=bound,
        gpus_busy=busy,
    )
