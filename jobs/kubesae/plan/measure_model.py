"""How fast a model runs here: some of its layers with random weights, in as many processes as would collect."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.limits import memory
from kubesae.plan.calibration import MeasuredModel, model_key
from kubesae.plan.shape import total

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.plan.known import ModelConfig
    from kubesae.plan.work import Work

_SECONDS = 12.0
_SHARE = 0.3
"""of the memory there is that the weights of all processes may take"""
_LEAST_LAYERS = 2
_READY_SECONDS = 120.0
_IMPORTS = "import kubesae.collect.run, kubesae.model.resident; from transformers import AutoModel"


@dataclass(frozen=True)
class _Task:
    """What each process runs."""

    source: ModelConfig
    depth: int
    vocab_size: int
    dtype: str
    device: str
    contexts: int
    context: int
    threads: int
    seconds: float


def measure_model(work: Work, source: ModelConfig, workers: int, device: str) -> MeasuredModel | None:
    """Return the speed of the experiment's model here; None where two of its layers take too much memory."""
    depth = _depth(work, workers, device)
    if depth is None:
        return None
    experiment = work.experiment
    threads = experiment.collect.threads or max(1, len(os.sched_getaffinity(0)) // workers)
    contexts = experiment.collect.forward_batch
    task = _Task(
        source=source,
        depth=depth,
        vocab_size=work.shape.vocab_size,
        dtype=experiment.model_dtype,
        device=device,
        contexts=contexts,
        context=experiment.context,
        threads=threads,
        seconds=_SECONDS,
    )
    speed = sum(_in_processes(_run, task, workers))
    return MeasuredModel(
        key=model_key(work.shape, experiment),
        name=work.shape.name,
        layers=depth,
        context=experiment.context,
        forward_batch=contexts,
        workers=workers,
        tokens_per_second=speed,
        flops=speed * work.shape.flops(depth, experiment.context),
    )


def _depth(work: Work, workers: int, device: str) -> int | None:
    """Return how many layers are run: all that are loaded, or as many as fit, those with experts among them."""
    if device == "cuda":
        import torch  # noqa: PLC0415

        room = torch.cuda.mem_get_info()[0] * _SHARE
    else:
        room = memory()[1] * _SHARE / workers
    first_experts = next((i for i, layer in enumerate(work.shape.layers) if layer.has_experts), 0)
    least = min(work.depth, first_experts + _LEAST_LAYERS)
    for depth in range(work.depth, least - 1, -1):
        if total(work.shape.loaded(depth)).parameters * work.itemsize <= room:
            return depth
    return None


def measure_startup(workers: int) -> float:
    """Return seconds until new processes, so many at a time, have imported what collecting imports."""
    began = time.perf_counter()
    started = [subprocess.Popen([sys.executable, "-c", _IMPORTS]) for _ in range(workers)]  # noqa: S603 - ourselves
    for process in started:
        process.wait()
    return time.perf_counter() - began


def _in_processes(run: Callable[[_Task, Any], float], task: _Task, workers: int) -> list[float]:
    """Run a task in fresh processes at the same time."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        barrier = manager.Barrier(workers)
        with context.Pool(workers) as pool:
            return pool.starmap(run, [(task, barrier)] * workers, chunksize=1)


def _run(task: _Task, barrier: Any) -> float:
    """Return tokens a second of one process."""
    import torch  # noqa: PLC0415 - seconds to import

    from kubesae.model.resident import ResidentEngine  # noqa: PLC0415

    torch.set_num_threads(task.threads)
    engine = ResidentEngine(_random_model(task), [task.depth - 1], task.depth)
    ids = np.random.default_rng(0).integers(0, task.vocab_size, (task.contexts, task.context)).astype(np.uint32)
    engine.forward(ids)
    barrier.wait(_READY_SECONDS)
    began, passes = time.perf_counter(), 0
    while time.perf_counter() < began + task.seconds:
        outputs = engine.forward(ids)
        outputs[task.depth - 1].cpu()
        passes += 1
    return passes * ids.size / (time.perf_counter() - began)


def _random_model(task: _Task) -> Any:
    """Return the first layers of a model with random weights, on the device."""
    import torch  # noqa: PLC0415
    from transformers import AutoModel  # noqa: PLC0415

    from kubesae.model.products import quicken  # noqa: PLC0415
    from kubesae.model.truncate import DTYPES, truncate_config  # noqa: PLC0415
    from kubesae.plan.count import transformers_config  # noqa: PLC0415

    config = truncate_config(transformers_config(task.source), task.depth)
    with torch.device(task.device):
        model = AutoModel.from_config(config, dtype=DTYPES[task.dtype])
    quicken(model, torch.device(task.device), DTYPES[task.dtype])
    return model.eval()
