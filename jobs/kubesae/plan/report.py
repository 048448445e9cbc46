"""What a plan says: the object that `kubesae plan --json` prints. Every field is described; `format` is its version.

Bytes, seconds, FLOP and dollars are plain numbers without prefixes. The table, the page and docs/planning.md are made
from this object alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kubesae.experiment import Section
from kubesae.plan.assumptions import Assumptions  # noqa: TC001 - a field's type

EngineName = Literal["resident", "streamed"]


class Kind(Section):
    """All tensors of one kind."""

    kind: str = Field(description="embeddings, attention, mlp, experts, shared experts, router, norms or head")
    parameters: int = Field(description="parameters")
    active: int = Field(description="those that one token meets")
    checkpoint_bytes: int = Field(description="bytes in the checkpoint")


class LayerRun(Section):
    """A run of layers that are alike."""

    first: int = Field(description="the first of them; -1 for what comes before the layers")
    last: int = Field(description="the last of them")
    loaded: bool = Field(description="the deepest captured layer needs them")
    kinds: tuple[Kind, ...] = Field(description="tensors of one of the layers, by kind")
    parameters: int = Field(description="parameters of one layer")
    active: int = Field(description="those that one token meets")
    checkpoint_bytes: int = Field(description="bytes of one layer in the checkpoint")
    flops_per_token: float = Field(description="FLOP of one token in one layer, at the experiment's context")


class Model(Section):
    """The model, from its config alone."""

    name: str = Field(description="hub id, or name of the folder")
    origin: str = Field(description="where the config came from")
    architecture: str = Field(description="model_type of the config")
    d_model: int = Field(description="width of the residual stream")
    layers: int = Field(description="layers of the whole model")
    vocab_size: int = Field(description="rows of the table of embeddings")
    experts: int = Field(description="experts of a layer; 0: none")
    active_experts: int = Field(description="experts that a token goes to")
    parameters: int = Field(description="parameters of the whole model")
    active_parameters: int = Field(description="those that one token meets")
    stored: str = Field(description="dtype of the checkpoint")
    quantization: str | None = Field(description="how the checkpoint is packed; null: it is not")
    checkpoint_bytes: int = Field(description="bytes of the whole model in its checkpoint")
    prediction_bytes: int = Field(description="bytes of layers that predict several tokens, which nothing loads")
    kinds: tuple[Kind, ...] = Field(description="the whole model by kind")
    loaded_layers: int = Field(description="layers that the deepest captured one needs")
    loaded_parameters: int = Field(description="parameters of these and of the embeddings: no head, no final norm")
    loaded_bytes: int = Field(description="bytes of these in the checkpoint")
    loaded_active_parameters: int = Field(description="those of them that one token meets")
    expanded_bytes: int = Field(description="bytes of these in `model_dtype`")
    flops_per_token: float = Field(description="FLOP of one token through them, at the experiment's context")
    by_layer: tuple[LayerRun, ...] = Field(description="runs of layers that are alike")


class Need(Section):
    """Something that takes memory."""

    what: str = Field(description="what it is")
    bytes: int = Field(description="how much")


class Memory(Section):
    """A place for bytes: what is needed of it and what there is."""

    where: str = Field(description="GPU, host or disk")
    needs: tuple[Need, ...] = Field(description="what takes it")
    needed: int = Field(description="sum of these")
    available: int = Field(description="bytes there are")

    @property
    def fits(self) -> bool:
        """Whether it is enough."""
        return self.needed <= self.available


class Engine(Section):
    """One of the engines on the chosen machines."""

    name: EngineName = Field(description="resident: weights stay on the GPUs; streamed: layers pass through them")
    fits: bool = Field(description="it fits GPUs, host and disk")
    gpu: Memory = Field(description="the fullest GPU of a slot")
    host: Memory = Field(description="memory of a node, with all its slots")
    disk: Memory = Field(description="local disks of a node: the weights that are loaded")
    tokens_per_second: float = Field(description="tokens a second of one slot, 0 where it does not fit")
    bound_by: str = Field(description="what sets it: compute, loading or upload")
    gpus_busy: int = Field(description="GPUs of a slot that compute at the same time")


class Streaming(Section):
    """How the streamed engine would go through the model."""

    layer: int = Field(description="the layer whose loading takes longest beside its computing")
    load_seconds: float = Field(description="to load that layer")
    load_from: str = Field(description="host memory (page cache) or local disk")
    break_even_gpu: int = Field(description="tokens for which one GPU computes as long as it loads")
    break_even_slot: int = Field(description="the same for all GPUs of a slot, which share one reading")
    block_tokens: int = Field(description="tokens of a block, whole parts, that the planner picks")
    block_parts: int = Field(description="parts of it")
    block_where: str = Field(description="where its hidden states lie: GPU or pinned host memory")
    block_bytes: int = Field(description="bytes of its hidden states")
    compute_seconds: float = Field(description="in which a block passes that layer")
    hidden_share: float = Field(description="share of all loading that computing hides")


class Reload(Section):
    """What a preemption costs."""

    same_node_seconds: float = Field(description="until a restarted program computes again, weights on the node's disk")
    new_node_seconds: float = Field(description="the same on a new node, which fetches the weights first")
    redone_tokens: float = Field(description="tokens that are computed again on average: half of what is not committed")


class Collection(Section):
    """Collecting all tokens."""

    engine: EngineName | None = Field(description="the engine that is planned with; null: none fits")
    why: str = Field(description="why this one")
    slots: int = Field(description="slots that work at the same time, each on its shards")
    gpus: int = Field(description="GPUs of all slots")
    nodes: int = Field(description="machines")
    tokens_per_second: float = Field(description="of all slots")
    seconds: float = Field(description="until all tokens are collected")
    pilot_seconds: float = Field(description="of the pilot, on one slot")
    gpu_hours: float = Field(description="GPUs x hours")
    node_hours: float = Field(description="machines x hours: what is paid")
    parts: int = Field(description="parts of all shards: as many commits")
    parts_per_shard: int = Field(description="parts of the largest shard")
    chunks_per_shard: int = Field(description="chunks of the largest shard")
    part_tokens: int = Field(description="tokens of a whole part")
    part_bytes: int = Field(description="bytes of the tar of a whole part and one layer")
    part_seconds: float = Field(description="in which one slot makes a part")


class Data(Section):
    """What is stored, and what it takes to write and read it."""

    bytes_per_token: int = Field(description="bytes of a token's activations, all layers")
    activation_bytes: int = Field(description="bytes of all activations alone")
    stored_bytes: int = Field(description="bytes of all objects: tars, moments, records, tokens")
    pilot_bytes: int = Field(description="bytes of the pilot's activations")
    objects: int = Field(description="objects, without what prepare keeps of its segments")
    write_requests: int = Field(description="PUT, POST and LIST requests of collecting and of one verification")
    read_requests: int = Field(description="GET and HEAD requests of training and of the pilot's verification")
    read_bytes: int = Field(description="bytes that the experiment's trainings read")
    bytes_per_second: float = Field(description="written by all slots while collecting")


class Training(Section):
    """Training one SAE, or one of a table by architecture and width."""

    name: str = Field(description="name of the SAE; of the table: 4x, 8x, 16x")
    architecture: str = Field(description="of the SAE")
    d_sae: int = Field(description="features")
    parameters: int = Field(description="parameters")
    l0: float = Field(description="active features a row that the plan takes")
    rows: int = Field(description="rows that it learns from, over all epochs")
    dense_flops: float = Field(description="FLOP if everything were dense: 12 a row, model dimension and feature")
    dense_seconds: float = Field(description="of the same on the GPUs that train")
    compute_seconds: float = Field(description="with sparse codes, computing alone")
    reading_seconds: float = Field(description="in which the rows come from the store")
    seconds: float = Field(description="the longer of the two: rows are read while earlier ones are trained on")
    bound_by: str = Field(description="compute or reading")
    memory: Memory = Field(description="one GPU")
    checkpoint_bytes: int = Field(description="of a checkpoint: weights and the optimiser's state")


class Cost(Section):
    """One line of the bill."""

    what: str = Field(description="what is paid")
    on_demand: float = Field(description="dollars")
    spot: float = Field(description="dollars with spot machines, with what preemptions add")
    how: str = Field(description="how it comes about")
    counted: bool = Field(description="it is part of the sum; egress is not: it falls due only if the data leaves")


class Offer(Section):
    """The same experiment on another GPU type."""

    gpu: str = Field(description="what --gpu takes")
    instance: str = Field(description="the machine")
    engine: EngineName | None = Field(description="the engine that is planned with; null: none fits")
    nodes: int = Field(description="machines")
    hours: float = Field(description="of collecting; 0 where nothing fits")
    on_demand: float = Field(description="dollars of collecting; 0 where nothing fits")
    spot: float = Field(description="dollars of collecting with spot machines")


class Problem(Section):
    """Something that does not fit."""

    what: str = Field(description="what does not fit where")
    change: str = Field(description="the smallest change that makes it fit")
    blocks: bool = Field(description="the experiment cannot be run as it is")


class Report(Section):
    """A plan."""

    format: Literal[1] = Field(1, description="version of this object")
    name: str = Field(description="name of the experiment")
    tokens: int = Field(description="tokens to collect")
    layers: tuple[int, ...] = Field(description="captured layers")
    context: int = Field(description="tokens of a context")
    gpu: str = Field(description="GPU type that is planned with")
    instance: str = Field(description="the machine with it")
    gpus_per_slot: int = Field(description="GPUs of a slot")
    calibrated: str | None = Field(description="what was measured here rather than assumed; null: nothing")
    model: Model = Field(description="the model")
    engines: tuple[Engine, ...] = Field(description="both engines")
    streaming: Streaming | None = Field(description="the streamed engine; null where not one layer fits")
    collection: Collection = Field(description="collecting")
    reload: Reload = Field(description="a preemption")
    data: Data = Field(description="what is stored")
    trainings: tuple[Training, ...] = Field(description="the experiment's SAEs")
    widths: tuple[Training, ...] = Field(description="every architecture at 4x, 8x and 16x")
    costs: tuple[Cost, ...] = Field(description="the bill")
    on_demand: float = Field(description="dollars of all of it")
    spot: float = Field(description="the same with spot machines")
    offers: tuple[Offer, ...] = Field(description="collecting on every GPU type of the price file")
    problems: tuple[Problem, ...] = Field(description="what does not fit, and what would")
    warnings: tuple[str, ...] = Field(description="where the usual guidance is off")
    assumptions: Assumptions = Field(description="what was taken for granted")
    prices_as_of: str = Field(description="date of the price file")
    prices_source: str = Field(description="where the price of the chosen machine comes from")
