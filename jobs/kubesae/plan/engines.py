"""The resident engine in numbers, which engine is planned with and why, and what a preemption costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.limits import REPLICA_SHARE
from kubesae.plan import memory as needs
from kubesae.plan.prices import GB
from kubesae.plan.report import Engine, Reload
from kubesae.plan.storing import upload_rate

if TYPE_CHECKING:
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.report import Streaming
    from kubesae.plan.work import Machines, Work

# The streamed engine is taken where both fit only if it is this many times as fast: it keeps more in flight.
_WORTH = 1.5


def resident(work: Work, machines: Machines, assumptions: Assumptions) -> Engine:
    """Return the resident engine.

    Where a GPU holds all that is loaded, each GPU of a slot does and takes its own batches. Else layers are spread over
    the GPUs, which a batch passes one after the other: they are as fast as one.
    """
    gpu, busy = needs.resident_gpu(work, machines, assumptions, 1), machines.gpus
    weights = next(need.bytes for need in gpu.needs if need.what == needs.WEIGHTS)
    if not gpu.fits or weights > REPLICA_SHARE * machines.gpu_bytes:
        gpu, busy = needs.resident_gpu(work, machines, assumptions, machines.gpus), 1
    host = needs.resident_host(work, machines, assumptions)
    disk = needs.disk(work, machines)
    speed, limit = busy * machines.model_flops / work.flops, upload_rate(work, assumptions)
    fits = gpu.fits and host.fits and disk.fits
    return Engine(
        name="resident",
        fits=fits,
        gpu=gpu,
        host=host,
        disk=disk,
        tokens_per_second=min(speed, limit) if fits else 0.0,
        bound_by=("upload" if limit < speed else "compute") if fits else "memory",
        gpus_busy=busy,
    )


def choose(engines: tuple[Engine, Engine], wanted: str) -> tuple[Engine | None, str]:
    """Return the engine to plan with (None: none fits) and why; `wanted` is `auto` or the name of one."""
    resident_one, streamed = engines
    if wanted != "auto":
        engine = resident_one if wanted == "resident" else streamed
        return (engine, "asked for") if engine.fits else (None, f"{wanted} was asked for and does not fit")
    if not resident_one.fits and not streamed.fits:
        return None, "neither engine fits"
    if not streamed.fits:
        return resident_one, "the model fits the GPUs; streaming does not fit"
    if not resident_one.fits:
        return streamed, f"the weights do not fit: {_lacking(resident_one)}"
    ratio = streamed.tokens_per_second / resident_one.tokens_per_second
    if ratio >= _WORTH:
        return streamed, (
            f"both fit; it is {ratio:.1f} times as fast, as {streamed.gpus_busy} GPUs of a slot compute at a time and "
            f"not {resident_one.gpus_busy}"
        )
    return resident_one, "the weights fit the GPUs, and streaming would not be much faster"


def _lacking(engine: Engine) -> str:
    for place in (engine.gpu, engine.host, engine.disk):
        if not place.fits:
            where = "a GPU" if place.where == "GPU" else place.where
            return f"{where} would need {place.needed / GB:,.0f} GB and has {place.available / GB:,.0f}"
    return "nothing is lacking"


def reload(
    work: Work, machines: Machines, assumptions: Assumptions, engine: Engine | None, streaming: Streaming | None
) -> Reload:
    """Return what a preemption costs: time until computing goes on, and tokens that are computed again."""
    size = needs.loaded_bytes(work)
    fetched = size / (assumptions.fetch_gb_s * GB)
    if engine is not None and engine.name == "streamed" and streaming is not None:
        first = work.shape.layers[0].whole.disk  # later ones load while it computes
        ready, open_tokens = first / (machines.node.disk_gb_s * GB), streaming.block_tokens
    else:
        rate = min(machines.node.disk_gb_s, machines.gpus * machines.node.host_to_gpu_gb_s) * GB
        ready, open_tokens = size * machines.slots_per_node / rate, work.part_tokens
    ready += assumptions.start_seconds
    waiting = work.experiment.collect.queue * work.part_tokens
    return Reload(
        same_node_seconds=ready,
        new_node_seconds=assumptions.node_seconds + fetched + ready,
        redone_tokens=(open_tokens + waiting) / 2,
    )
