"""Numbers and rows of a plan as people read them: shared by the terminal's table and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.units import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.plan.report import Engine, LayerRun, Memory, Offer, Report, Training

KIND_HEAD = ("", "parameters", "of a token", "checkpoint")
LAYER_HEAD = ("layers", "attention", "MLP", "experts", "other", "parameters", "of a token", "checkpoint", "GFLOP/token")
MEMORY_HEAD = ("engine", "", "GPU", "host", "disk", "tokens/s a slot", "bound by")
TRAIN_HEAD = ("SAE", "architecture", "features", "parameters", "GPU memory", "dense", "sparse", "reading", "checkpoint")
WIDTH_HEAD = ("", "features", "GPU memory", "checkpoint", "dense", "TopK", "ReLU, JumpReLU, Gated", "reading")
COST_HEAD = ("", "on demand", "spot", "")
OFFER_HEAD = ("GPU", "machine", "machines", "engine", "time", "on demand", "spot")


def short(count: float) -> str:
    """Return a number of parameters as `32.8 B`."""
    for unit in ("", " k", " M", " B"):
        if count < 999.5:
            return f"{count:.3g}{unit}" if count < 99.95 else f"{count:.0f}{unit}"
        count /= 1000
    return f"{count:.3f} T"


def dollars(amount: float) -> str:
    """Return an amount of money."""
    return f"${amount:,.2f}" if amount < 100 else f"${amount:,.0f}"


def layers_of(run: LayerRun) -> str:
    """Return the name of a run of layers."""
    name = "embeddings" if run.first < 0 else str(run.first) if run.first == run.last else f"{run.first}-{run.last}"
    return name if run.loaded else f"{name}, not loaded"


def headline(report: Report) -> str:
    """Return what is planned, in a line."""
    layers = f"layer{'s' * (len(report.layers) > 1)} {', '.join(map(str, report.layers))}"
    many = report.collection.slots
    slots = f"{many} slot{'s' * (many > 1)} of {report.gpus_per_slot} x {report.gpu}"
    return f"{report.model.name}, {layers}, {report.tokens:,} tokens, {slots}"


def summary(report: Report) -> str:
    """Return what most people want to know, in a line."""
    stored = f"{size(report.data.stored_bytes)} to store"
    if report.collection.engine is None:
        return f"It cannot be run as it is: {report.collection.why}; {stored}."
    price = f"{dollars(report.on_demand)} in all ({dollars(report.spot)} with spot machines)"
    return f"{report.collection.engine} engine, {duration(report.collection.seconds)} to collect, {stored}, {price}."


def kind_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield the model by kind, the whole of it, and what is loaded."""
    model = report.model
    for kind in model.kinds:
        yield kind.kind, short(kind.parameters), short(kind.active), size(kind.checkpoint_bytes)
    yield "all", short(model.parameters), short(model.active_parameters), size(model.checkpoint_bytes)
    loaded = (short(model.loaded_parameters), short(model.loaded_active_parameters), size(model.loaded_bytes))
    yield (f"loaded: layers 0-{model.loaded_layers - 1}", *loaded)


def layer_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield a row a run of layers."""
    for run in merged_runs(report):
        of = {kind.kind: kind.checkpoint_bytes for kind in run.kinds}
        main = (of.get("attention", 0), of.get("mlp", 0), of.get("experts", 0))
        shown = [size(count) if count else "-" for count in (*main, run.checkpoint_bytes - sum(main))]
        flops = f"{run.flops_per_token / 1e9:.3g}" if run.first >= 0 else "-"
        yield layers_of(run), *shown, short(run.parameters), short(run.active), size(run.checkpoint_bytes), flops


def merged_runs(report: Report) -> Iterator[LayerRun]:
    """Yield runs of layers, one after the other as one where only their attention's window differs (Gemma 2)."""
    waiting: LayerRun | None = None
    for run in report.model.by_layer:
        if waiting is not None and (waiting.kinds, waiting.loaded) == (run.kinds, run.loaded):
            count, more = waiting.last - waiting.first + 1, run.last - run.first + 1
            flops = (waiting.flops_per_token * count + run.flops_per_token * more) / (count + more)
            waiting = waiting.model_copy(update={"last": run.last, "flops_per_token": flops})
            continue
        if waiting is not None:
            yield waiting
        waiting = run
    if waiting is not None:
        yield waiting


def memory_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield a row an engine: what it needs of what there is."""
    for engine in report.engines:
        places = (f"{_needed(place)} of {size(place.available)}" for place in (engine.gpu, engine.host, engine.disk))
        speed = f"{engine.tokens_per_second:,.0f}" if engine.fits else "-"
        yield engine.name, "fits" if engine.fits else "does not fit", *places, speed, engine.bound_by


def _needed(place: Memory) -> str:
    return size(place.needed) if place.fits else f"{size(place.needed)} (!)"


def needs_of(engine: Engine) -> Iterator[tuple[str, str]]:
    """Yield what takes the memory of a GPU and of the host."""
    for place, name in ((engine.gpu, "GPU"), (engine.host, "host")):
        yield name, ", ".join(f"{size(need.bytes)} {need.what}" for need in place.needs)


def streaming_rows(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what the streamed engine would do."""
    streaming = report.streaming
    if streaming is None:
        yield "not possible", "not one layer fits a GPU"
        return
    yield (
        "break-even",
        (
            f"{streaming.break_even_gpu:,} tokens on one GPU, {streaming.break_even_slot:,} on a slot of "
            f"{report.gpus_per_slot}, which shares one reading: layer {streaming.layer} then computes as long as it "
            f"loads ({streaming.load_seconds:.3g} s from {streaming.load_from})"
        ),
    )
    yield (
        "block",
        (
            f"{streaming.block_tokens:,} tokens: {streaming.block_parts} parts, {size(streaming.block_bytes)} in "
            f"{'GPU memory' if streaming.block_where == 'GPU' else streaming.block_where}; the layer computes "
            f"{streaming.compute_seconds:.3g} s, and {streaming.hidden_share:.0%} of all loading is hidden"
        ),
    )


def collection_rows(report: Report) -> Iterator[tuple[str, str]]:
    """Yield how collecting goes."""
    found, data = report.collection, report.data
    yield "engine", f"{found.engine}: {found.why}" if found.engine else f"none: {found.why}"
    if found.engine:
        yield "speed", f"{found.tokens_per_second:,.0f} tokens/s in all, {size(data.bytes_per_second)}/s to the store"
        yield "time", f"{duration(found.seconds)}, start included; the pilot {duration(found.pilot_seconds)}"
        machines = (
            f"{found.nodes} x {report.instance}: {found.gpu_hours:,.1f} GPU-hours, {found.node_hours:,.1f} node-hours"
        )
        yield "machines", machines
    yield (
        "plan",
        (
            f"{found.parts:,} parts, at most {found.parts_per_shard:,} a shard, of {found.part_tokens:,} tokens "
            f"({size(found.part_bytes)} a layer); {found.chunks_per_shard:,} chunks a shard"
        ),
    )
    if found.engine:
        again = report.reload.redone_tokens
        yield (
            "preemption",
            (
                f"goes on after {duration(report.reload.same_node_seconds)} on the same node, "
                f"{duration(report.reload.new_node_seconds)} on a new one; about {again:,.0f} tokens are computed again"
            ),
        )


def data_rows(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what is stored and moved."""
    data = report.data
    yield "activations", f"{size(data.activation_bytes)}: {data.bytes_per_token:,} bytes a token"
    yield "in the store", f"{size(data.stored_bytes)} in {data.objects:,} objects; the pilot {size(data.pilot_bytes)}"
    reads = f"{data.read_requests:,} reads of {size(data.read_bytes)} to train"
    yield "requests", f"{data.write_requests:,} writes; {reads}"


def training_row(training: Training) -> tuple[str, ...]:
    """Return the row of one SAE."""
    memory = training.memory
    return (
        training.name,
        training.architecture,
        f"{training.d_sae:,}",
        short(training.parameters),
        f"{_needed(memory)} of {size(memory.available)}",
        duration(training.dense_seconds),
        duration(training.compute_seconds),
        duration(training.reading_seconds),
        size(training.checkpoint_bytes),
    )


def width_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield a row an expansion: architectures differ in how many features are active, and in little else."""
    names = dict.fromkeys(training.name for training in report.widths)
    for name in names:
        of = {training.architecture: training for training in report.widths if training.name == name}
        relu, topk = of["relu"], of["topk"]
        yield (
            name,
            f"{relu.d_sae:,}",
            _needed(relu.memory),
            size(relu.checkpoint_bytes),
            duration(relu.dense_seconds),
            duration(topk.compute_seconds),
            duration(relu.compute_seconds),
            duration(relu.reading_seconds),
        )


def cost_rows(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield the bill; what is not part of the sum stands below it."""
    for line in report.costs:
        if line.counted:
            yield line.what, dollars(line.on_demand), dollars(line.spot), line.how
    yield "all", dollars(report.on_demand), dollars(report.spot), _saving(report)
    for line in report.costs:
        if not line.counted:
            yield f"({line.what})", dollars(line.on_demand), dollars(line.spot), line.how


def _saving(report: Report) -> str:
    saved = report.on_demand - report.spot
    return f"spot saves {dollars(saved)} ({saved / report.on_demand:.0%})" if saved > 0 else ""


def offer_row(offer: Offer) -> tuple[str, ...]:
    """Return the row of a GPU type."""
    if offer.engine is None:
        return offer.gpu, offer.instance, str(offer.nodes), "none fits", "-", "-", "-"
    prices = (dollars(offer.on_demand), dollars(offer.spot))
    return offer.gpu, offer.instance, str(offer.nodes), offer.engine, duration(offer.hours * 3600), *prices


def assumption_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield each assumption: name, value, what it is."""
    for name, info in type(report.assumptions).model_fields.items():
        value = getattr(report.assumptions, name)
        shown = str(value).lower() if isinstance(value, bool) else f"{value:g}"
        yield name, shown, info.description or ""


def aligned(rows: Sequence[Sequence[str]], words: frozenset[int]) -> Iterator[str]:
    """Yield rows of text with columns under each other: those in `words` on the left, others on the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
