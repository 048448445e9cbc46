"""Warnings where the usual guidance is off for this experiment, each with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.plan.memory import keeps_packed
from kubesae.plan.prices import GB
from kubesae.plan.shape import total
from kubesae.units import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.plan.report import Cost, Data, Training
    from kubesae.plan.scenario import Choice, Scenario
    from kubesae.plan.work import Work

_LARGE = 100 * GB
"""stored bytes above which sizes of parts and blocks matter"""
_PART = (256 << 20, 1 << 30)
_BLOCK = 8e6
_EXPERT_ROWS = 300
"""rows below which an expert's product takes as long as reading its weights (an H100: 295 FLOP a byte)"""
_LONG = 2 * 3600


def warnings(
    work: Work, choice: Choice, found: Scenario, data: Data, trainings: Sequence[Training], bill: Sequence[Cost]
) -> tuple[str, ...]:
    """Return the warnings, the costly ones first."""
    return (
        *_weights(work, choice, found),
        *_speed(work, choice, found),
        *_training(choice, trainings),
        *_storage(work, found, data, bill),
    )


def _weights(work: Work, choice: Choice, found: Scenario) -> Iterator[str]:
    whole, loaded = work.shape.whole, total(work.shape.loaded(work.depth))
    room = choice.gpus * choice.node.memory_gb * GB
    if whole.disk > room:
        yield (
            f"The checkpoint has {size(whole.disk)}; {choice.gpus} x {choice.node.gpu} have {size(room)}. Layers 0 to "
            f"{work.depth - 1} without the head are {size(loaded.disk)}."
        )
    if loaded.packed and not keeps_packed(work, found.machines):
        yield (
            f"transformers expands {work.shape.quantization} to {work.experiment.model_dtype} while it loads: "
            f"{size(whole.parameters * work.itemsize)} for the whole model, {size(loaded.parameters * work.itemsize)} "
            "for these layers. That it is small on disk does not make it fit."
        )


def _speed(work: Work, choice: Choice, found: Scenario) -> Iterator[str]:
    engine = found.engine
    if engine is None:
        return
    if engine.name == "resident" and choice.gpus > 1 and engine.gpus_busy == 1 and engine.bound_by == "compute":
        yield (
            f"The {choice.gpus} GPUs of a slot work one after the other, as fast as one. Where the model fits fewer, "
            "give slots fewer GPUs (--gpus-per-slot) and have more of them (num_shards): the same work costs less."
        )
    if engine.name != work.experiment.collect.engine:
        streaming = found.streaming if engine.name == "streamed" else None
        block = "" if streaming is None else f" and collect.block_tokens: {streaming.block_tokens}"
        written = work.experiment.collect.engine
        yield f"The experiment says collect.engine: {written}. As planned it is {engine.name}{block}."
    if engine.bound_by == "upload":
        fewer = "" if work.experiment.storage == "int8-block32" else ", or half the bytes (storage: int8-block32)"
        yield (
            f"The model is faster than a slot's way to the store ({choice.assumptions.upload_gb_s:g} GB/s): smaller "
            f"GPUs would do{fewer}."
        )
    if engine.bound_by == "loading" and found.streaming is not None:
        yield (
            f"Loading is not hidden: {found.streaming.hidden_share:.0%} of it. A block of "
            f"{found.streaming.break_even_slot:,} tokens would hide it, and does not fit or is more than a shard."
        )
    shape = work.shape
    rows = work.forward_tokens * shape.active_experts / shape.experts if shape.experts else _EXPERT_ROWS
    if rows < _EXPERT_ROWS and engine.bound_by != "upload":
        wanted = -(-_EXPERT_ROWS * shape.experts // (shape.active_experts * work.experiment.context))
        yield (
            f"Each of {shape.experts} experts sees about {rows:,.0f} rows of a batch, fewer than the {_EXPERT_ROWS} "
            f"that keep a GPU busy: set collect.forward_batch to {wanted} where memory allows."
        )


def _training(choice: Choice, trainings: Sequence[Training]) -> Iterator[str]:
    for training in trainings:
        if training.dense_seconds > _LONG:
            gpus = f"{choice.assumptions.train_gpus} x {choice.node.gpu}"
            yield (
                f"{training.name}: {training.rows:,} rows at {training.d_sae:,} features are "
                f"{training.dense_flops:.2g} FLOP done densely, {duration(training.dense_seconds)} on {gpus}; "
                f"{duration(training.compute_seconds)} with sparse codes (not measured on a GPU)."
            )
        if training.bound_by == "reading" and training.seconds > _LONG:
            yield (
                f"{training.name}: reading bounds the training ({duration(training.reading_seconds)} at "
                f"{choice.assumptions.read_gb_s:g} GB/s a GPU), not computing. More GPUs (train_gpus) read more."
            )


def _storage(work: Work, found: Scenario, data: Data, bill: Sequence[Cost]) -> Iterator[str]:
    if data.pilot_bytes > 10 * GB:
        yield (
            f"The pilot stores {size(data.pilot_bytes)}: a token takes {size(data.bytes_per_token)} "
            f"(d_model {work.shape.d_model:,})."
        )
    if data.stored_bytes < _LARGE:
        return
    part = found.collection.part_bytes
    if not _PART[0] <= part <= _PART[1]:
        row = work.row_bytes / len(work.experiment.layers) * work.experiment.context
        wanted = max(1, round(512 * (1 << 20) / row))
        yield (
            f"A part is {size(part)}; stores and readers like 256 MiB to 1 GiB. contexts_per_part {wanted} makes it "
            "about 512 MiB."
        )
    block = work.experiment.contexts_per_block * work.experiment.context * work.row_bytes / len(work.experiment.layers)
    if block < _BLOCK:
        wanted = -(-int(_BLOCK) * work.experiment.contexts_per_block // int(block))
        yield f"A block is {size(block)}; ranged reads want 8 MB or more: contexts_per_block {wanted}."
    for cost in bill:
        if cost.what == "egress":
            yield f"Reading all of it once from outside the provider costs ${cost.on_demand:,.0f}: train beside it."
