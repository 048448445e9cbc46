"""SAE training in numbers: memory of a GPU, FLOP, and seconds, by architecture and width.

Only the encoder's forward product is dense; everything after it touches the active features alone and is as fast as
memory is (`sae/kernels.py`). On GPUs those gathers are torch's and were not measured: `dense_seconds` is what the same
training takes when all products are dense, the usual way to do it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kubesae.plan.memory import memory
from kubesae.plan.prices import GB
from kubesae.plan.report import Training
from kubesae.plan.work import ITEMSIZE
from kubesae.shards import codec

if TYPE_CHECKING:
    from kubesae.experiment import Sae
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.prices import Node
    from kubesae.plan.report import Memory
    from kubesae.plan.work import Work

ARCHITECTURES = ("relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated")
EXPANSIONS = (4, 8, 16)
WITH_K = frozenset({"topk", "batchtopk", "matryoshka"})

# A row, feature and dimension: forward encode and decode 4, backward twice that (arXiv 2001.08361, appendix B).
_DENSE_FLOPS = 12
_ENCODE_FLOPS = 2
# Each active feature of a row is touched in the decoder, in both gradients and in the gradient of its value.
_SPARSE_PASSES = 4
# Bytes a parameter: weight, two moments and gradient in float32, and half of them (the encoder) once more in bf16.
_WEIGHT, _MOMENTS, _GRADIENT, _COPY = 4, 8, 4, 1
# A step of Adam reads weight, moments and gradient and writes the first three.
_ADAM = 28
_SLICE = 3 * (1 << 29) * 2
"""bytes of slices of the encoder's output, on a GPU, with what searches them"""


def parameters_of(d_model: int, d_sae: int, architecture: str) -> int:
    """Return parameters: two matrices, two biases, and a threshold or a gate each feature where there is one."""
    more = {"jumprelu": d_sae, "gated": 2 * d_sae}.get(architecture, 0)
    return 2 * d_model * d_sae + d_sae + d_model + more


def train(work: Work, node: Node, assumptions: Assumptions, sae: Sae, name: str) -> Training:
    """Return the training of one SAE on `train_gpus` GPUs of the node's type, alone."""
    d_model, architecture = work.shape.d_model, sae.architecture
    d_sae = sae.d_sae or sae.expansion * d_model
    l0 = float(sae.k if architecture in WITH_K else sae.target_l0 or assumptions.sae_l0)
    kept = min(sae.max_tokens or work.plan.tokens, work.plan.tokens) * (1 - sae.validation)
    rows = int(kept * sae.epochs)
    steps = math.ceil(kept / sae.batch_size) * sae.epochs
    gpus, peak = assumptions.train_gpus, node.bf16_tflops * 1e12 * assumptions.matmul_share_sae
    bandwidth = node.memory_gb_s * GB
    parameters = parameters_of(d_model, d_sae, architecture)
    adam = steps * parameters * _ADAM / bandwidth
    dense = float(_DENSE_FLOPS * d_model * d_sae) * rows
    touched = _SPARSE_PASSES * l0 * d_model * 4 * _decodes(sae)
    computing = rows * (_ENCODE_FLOPS * d_model * d_sae / peak + touched / bandwidth) / gpus + adam
    reading = rows * work.row_bytes / len(work.experiment.layers) / (assumptions.read_gb_s * GB * gpus)
    return Training(
        name=name,
        architecture=architecture,
        d_sae=d_sae,
        parameters=parameters,
        l0=l0,
        rows=rows,
        dense_flops=dense,
        dense_seconds=dense / peak / gpus + adam,
        compute_seconds=computing,
        reading_seconds=reading,
        seconds=max(computing, reading),
        bound_by="reading" if reading > computing else "compute",
        memory=_memory(work, node, assumptions, sae, parameters),
        checkpoint_bytes=parameters * (_WEIGHT + _MOMENTS),
    )


def _decodes(sae: Sae) -> float:
    """Return how many times the decoder is passed: matryoshka reconstructs from each prefix too."""
    return 1.0 + sum(sae.prefixes) if sae.architecture == "matryoshka" else 1.0


def _memory(work: Work, node: Node, assumptions: Assumptions, sae: Sae, parameters: int) -> Memory:
    d_model = work.shape.d_model
    batch = -(-sae.batch_size // assumptions.train_gpus)
    d_sae = sae.d_sae or sae.expansion * d_model
    codes = min(_SLICE, 3 * batch * d_sae * 2)
    rows = 2 * sae.batch_size * d_model * ITEMSIZE[codec(work.experiment.storage).loaded] + 4 * batch * d_model * 4
    needs = [
        ("weights", parameters * _WEIGHT),
        ("Adam's moments", parameters * _MOMENTS),
        ("gradients", parameters * _GRADIENT),
        ("encoder in bfloat16", parameters * _COPY),
        ("slices of the encoder's output", codes),
        ("rows and errors", rows),
        ("CUDA and allocator", assumptions.reserve_gb * GB),
    ]
    return memory("GPU", needs, node.memory_gb * GB)


def own_trainings(work: Work, node: Node, assumptions: Assumptions) -> tuple[Training, ...]:
    """Return the trainings of the experiment's SAEs."""
    found = []
    for sae in work.experiment.sae:
        layer = work.experiment.layers[0] if sae.layer is None else sae.layer
        d_sae = sae.d_sae or sae.expansion * work.shape.d_model
        name = sae.name or f"layer-{layer:03d}-{sae.architecture}-{d_sae}"
        found.append(train(work, node, assumptions, sae, name))
    return tuple(found)


def widths(work: Work, node: Node, assumptions: Assumptions) -> tuple[Training, ...]:
    """Return the trainings of every architecture at every expansion, all else as the experiment's first SAE."""
    first = work.experiment.sae[0]
    return tuple(
        train(
            work,
            node,
            assumptions,
            first.model_copy(update={"architecture": architecture, "d_sae": None, "expansion": expansion}),
            f"{expansion}x",
        )
        for expansion in EXPANSIONS
        for architecture in ARCHITECTURES
    )
