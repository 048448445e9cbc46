"""One experiment on one kind of machine: engines, choice, collection, bill. What `run` asks of every alternative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.ledger import chunk_edges
from kubesae.plan import cost, engines
from kubesae.plan.report import Collection
from kubesae.plan.storing import tar_bytes
from kubesae.plan.streaming import stream
from kubesae.plan.work import HERE, Machines, Work

if TYPE_CHECKING:
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.prices import Node
    from kubesae.plan.report import Cost, Engine, Reload, Streaming

HOUR = 3600.0


@dataclass(frozen=True)
class Choice:
    """What decides a scenario beside the work.

    Attributes:
        node: type of machine.
        gpus: GPUs of a slot.
        engine: `auto`, `resident` or `streamed`.
        assumptions: everything else.
        measured: FLOP a second of one GPU in this model, where it was measured.

    """

    node: Node
    gpus: int
    engine: str
    assumptions: Assumptions
    measured: float | None = None


@dataclass(frozen=True)
class Scenario:
    """How it would go."""

    machines: Machines
    engines: tuple[Engine, Engine]
    engine: Engine | None
    streaming: Streaming | None
    collection: Collection
    reload: Reload
    cost: Cost


def scenario(work: Work, choice: Choice) -> Scenario:
    """Return how the work goes on these machines.

    Raises:
        ConfigError: a slot wants more GPUs than a machine has.

    """
    assumptions = choice.assumptions
    machines = Machines.of(work, choice.node, choice.gpus, assumptions, choice.measured)
    streamed, streaming = stream(work, machines, assumptions)
    both = (engines.resident(work, machines, assumptions), streamed)
    engine, why = engines.choose(both, choice.engine)
    reload = engines.reload(work, machines, assumptions, engine, streaming)
    collection = _collection(work, machines, engine, why, reload)
    bill = cost.collecting(collection, reload, choice.node, assumptions)
    return Scenario(machines, both, engine, streaming, collection, reload, bill)


def _collection(work: Work, machines: Machines, engine: Engine | None, why: str, reload: Reload) -> Collection:
    plan, experiment = work.plan, work.experiment
    rate = 0.0 if engine is None else engine.tokens_per_second
    start = reload.same_node_seconds if machines.node.name == HERE else reload.new_node_seconds
    shards = -(-plan.num_shards // machines.slots)
    # slots of one machine share its cores: there, all of it is one queue of work
    tokens = plan.tokens / machines.slots if machines.node.name == HERE else shards * plan.quota(0)
    seconds = start + tokens / rate if rate else 0.0
    pilot = plan.rows_before(0, plan.pilot_parts(experiment.pilot.tokens))
    part = plan.part(0, 0)
    return Collection(
        engine=None if engine is None else engine.name,
        why=why,
        slots=machines.slots,
        gpus=machines.slots * machines.gpus,
        nodes=machines.nodes,
        tokens_per_second=rate * machines.slots,
        seconds=seconds,
        pilot_seconds=start + pilot / rate if rate else 0.0,
        gpu_hours=machines.slots * machines.gpus * seconds / HOUR,
        node_hours=machines.nodes * seconds / HOUR,
        parts=sum(plan.parts(shard) for shard in range(plan.num_shards)),
        parts_per_shard=plan.parts(0),
        chunks_per_shard=len(chunk_edges(plan.quota(0), experiment.chunk)),
        part_tokens=part.rows,
        part_bytes=tar_bytes(plan, part, work.shape.d_model, experiment.storage),
        part_seconds=part.rows / rate if rate else 0.0,
    )
