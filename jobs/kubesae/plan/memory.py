"""Memory that the two engines need: of the fullest GPU of a slot, of a node's host memory, of its disks. Bytes.

Estimates are from above: what a layer's matrices give for one token counts as if all of it were alive at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.plan.prices import GB
from kubesae.plan.report import Memory, Need
from kubesae.plan.shape import total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.shape import Group, Layer
    from kubesae.plan.work import Machines, Work

WEIGHTS = "weights"
"""what holds the weights of the resident engine is called"""
_PROCESS = 4 * GB
"""host memory of a worker itself: Python, torch, buffers of the client"""
_RESIDUALS = 6
"""copies of a hidden state that a layer holds beside what its matrices give: input, residuals, norms, output"""


def memory(where: str, needs: Sequence[tuple[str, float]], available: float) -> Memory:
    """Return a place with what takes it, largest first; what takes nothing is left out."""
    kept = sorted((Need(what=what, bytes=int(count)) for what, count in needs if count), key=lambda need: -need.bytes)
    return Memory(where=where, needs=tuple(kept), needed=sum(need.bytes for need in kept), available=int(available))


def keeps_packed(work: Work, machines: Machines) -> bool:
    """Whether transformers keeps a packed checkpoint as it is: FP8 on GPUs that multiply it, INT4 never.

    INT4 experts of compressed-tensors become bfloat16 while they load, whatever is asked for (transformers 5, pull
    request 45630).
    """
    return machines.node.fp8 and (work.shape.quantization or "").startswith("FP8")


def loaded_bytes(work: Work) -> int:
    """Return bytes of what is loaded, as it lies in the checkpoint."""
    return total(work.shape.loaded(work.depth)).disk


def workspace(work: Work) -> float:
    """Return bytes that one forward pass needs beside the weights, on the GPU that has its largest layer."""
    width = max(layer.whole.outputs for layer in work.shape.layers[: work.depth]) + _RESIDUALS * work.shape.d_model
    return float(work.forward_tokens * width * work.itemsize)


def resident_gpu(work: Work, machines: Machines, assumptions: Assumptions, gpus: int) -> Memory:
    """Return the fullest of `gpus` over which the layers lie whose weights stay; of one, all of them."""
    packed = keeps_packed(work, machines)

    def size(groups: Sequence[Group]) -> int:
        return total(groups).memory(work.itemsize, keeps_packed=packed)

    pieces = [size(work.shape.before), *(size(layer.groups) for layer in work.shape.layers[: work.depth])]
    captured = work.forward_tokens * work.shape.d_model * len(work.experiment.layers) * work.itemsize
    needs = [
        (WEIGHTS, fullest(pieces, gpus)),
        ("one forward pass", workspace(work)),
        ("captured layers", captured),
        ("CUDA and allocator", assumptions.reserve_gb * GB),
    ]
    return memory("GPU", needs, machines.gpu_bytes)


def fullest(pieces: Sequence[int], bins: int) -> int:
    """Return the size of the fullest bin when `pieces` are laid out in order over `bins`, as evenly as that goes."""
    low, high = max(pieces), sum(pieces)
    while low < high:
        middle = (low + high) // 2
        used, room = 1, middle
        for piece in pieces:
            if piece > room:
                used, room = used + 1, middle
            room -= piece
        low, high = (low, middle) if used <= bins else (middle + 1, high)
    return low


def streamed_weights(work: Work) -> list[tuple[str, float]]:
    """Return what weights take of a GPU through which layers pass: this one and the next, and one as it computes."""
    layers = work.shape.layers[: work.depth]
    stored = max(layer.whole.disk for layer in layers)
    needs = [("two layers as stored", 2.0 * stored)]
    expanded = max(_expanded(layer, work.itemsize) for layer in layers)
    if expanded:
        needs.append((f"one layer in {work.experiment.model_dtype}", expanded))
    return needs


def _expanded(layer: Layer, itemsize: int) -> float:
    """Return bytes of a layer in the dtype that it computes in; 0 where it is stored so."""
    whole = layer.whole
    computed = whole.parameters * itemsize
    return 0.0 if computed == whole.disk else float(computed)


def streamed_gpu(work: Work, machines: Machines, assumptions: Assumptions, on_gpu: float) -> Memory:
    """Return a GPU through which layers pass, with `on_gpu` bytes of a block's hidden states."""
    needs = [
        *streamed_weights(work),
        ("hidden states", on_gpu),
        ("one forward pass", workspace(work)),
        ("CUDA and allocator", assumptions.reserve_gb * GB),
    ]
    return memory("GPU", needs, machines.gpu_bytes)


def queue_bytes(work: Work) -> float:
    """Return host memory of parts that are being made, wait or are sent: `collect.queue` of them and two more."""
    return float((work.experiment.collect.queue + 2) * work.part_tokens * work.row_bytes)


def resident_host(work: Work, machines: Machines, assumptions: Assumptions) -> Memory:
    """Return the host memory of a node whose slots hold their weights on the GPUs."""
    slots = machines.slots_per_node
    needs = [("parts on their way to the store", slots * queue_bytes(work)), ("workers", slots * _PROCESS)]
    return memory("host", needs, machines.host_bytes(assumptions))


def streamed_host(work: Work, machines: Machines, assumptions: Assumptions, on_host: float) -> Memory:
    """Return the host memory of a node through which layers pass, with `on_host` bytes of hidden states a slot.

    The weights are counted where there is room for them and the experiment does not read past it; else they are read
    from disk each time.
    """
    slots = machines.slots_per_node
    largest = max(layer.whole.disk for layer in work.shape.layers[: work.depth])
    needs = [
        ("hidden states", slots * on_host),
        ("two layers, pinned", 2.0 * slots * largest),
        ("parts on their way to the store", slots * queue_bytes(work)),
        ("workers", slots * _PROCESS),
    ]
    available = machines.host_bytes(assumptions)
    cached = float(loaded_bytes(work))
    fits = sum(count for _, count in needs) + cached <= available
    if fits and work.experiment.collect.weights != "direct":
        needs.append(("weights in the page cache", cached))
    return memory("host", needs, available)


def is_cached(host: Memory) -> bool:
    """Whether the weights stay in the page cache of a node with this host memory."""
    return any("page cache" in need.what for need in host.needs)


def disk(work: Work, machines: Machines) -> Memory:
    """Return the disks of a node that keeps the weights which are loaded."""
    return memory("disk", [("weights that are loaded", loaded_bytes(work))], machines.node.disk_gb * GB)
