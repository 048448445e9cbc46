"""What does not fit, and the smallest change that makes it fit: found by trying changes, the small ones first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError
from kubesae.plan.prices import GB
from kubesae.plan.report import Problem
from kubesae.plan.scenario import scenario
from kubesae.plan.training import EXPANSIONS, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kubesae.experiment import Sae
    from kubesae.plan.prices import Node
    from kubesae.plan.report import Engine, Memory, Training
    from kubesae.plan.scenario import Choice, Scenario
    from kubesae.plan.work import Work


def problems(work: Work, choice: Choice, found: Scenario, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Yield what does not fit of collecting.

    Args:
        work: the experiment.
        choice: machines and engine that it is planned with.
        found: how it goes with these.
        nodes: machines that there are.

    """
    for engine in found.engines:
        place = _lacking(engine)
        if place is None:
            continue
        wanted = found.engine is None and choice.engine in {"auto", engine.name}
        if found.engine is None and not wanted:
            continue
        what = f"{engine.name}: {_too_much(place)}"
        change = _change(work, choice, engine, found, nodes)
        if found.engine is not None:
            change = f"planned with {found.engine.name}; for {engine.name}: {change}"
        yield Problem(what=what, change=change, blocks=found.engine is None)


def _change(work: Work, choice: Choice, engine: Engine, found: Scenario, nodes: Sequence[Node]) -> str:
    """Return the smallest change with which this engine fits; `none` where nothing that was tried helps."""
    if found.engine is None and choice.engine != "auto" and _fits(work, replace(choice, engine="auto")):
        return "--engine auto: the other engine fits"
    tried = replace(choice, engine=engine.name)
    more = [gpus for gpus in range(choice.gpus + 1, choice.node.gpus + 1) if choice.node.gpus % gpus == 0]
    for gpus in more:
        if _fits(work, replace(tried, gpus=gpus)):
            return f"--gpus-per-slot {gpus}: {gpus} GPUs of this type a slot"
    for node in sorted(nodes, key=lambda node: node.dollars_per_hour / node.gpus):
        other = replace(tried, node=node, measured=None)
        if node.name != choice.node.name and choice.gpus <= node.gpus and _fits(work, other):
            return f"--gpu {node.name}: {choice.gpus} x {node.gpu} a slot"
    for node in sorted(nodes, key=lambda node: node.dollars_per_hour / node.gpus):
        for gpus in (4, 8):
            if choice.gpus < gpus <= node.gpus and _fits(work, replace(tried, node=node, gpus=gpus, measured=None)):
                return f"--gpu {node.name} --gpus-per-slot {gpus}: {gpus} x {node.gpu} a slot"
    deepest = _deepest(work, tried)
    if deepest is not None:
        return f"--layers {deepest}: no later layer than {deepest} fits these GPUs"
    return "none of the machines of the price file holds it: give another `model`"


def _deepest(work: Work, choice: Choice) -> int | None:
    """Return the deepest layer up to which the model fits; None where not even the first one does."""
    for depth in range(work.depth - 1, 0, -1):
        experiment = work.experiment.model_copy(update={"layers": (depth - 1,)})
        if _fits(replace(work, experiment=experiment, depth=depth), choice):
            return depth - 1
    return None


def _fits(work: Work, choice: Choice) -> bool:
    try:
        return scenario(work, choice).engine is not None
    except ConfigError:
        return False


def _lacking(engine: Engine) -> Memory | None:
    return next((place for place in (engine.gpu, engine.host, engine.disk) if not place.fits), None)


def _too_much(place: Memory) -> str:
    largest = place.needs[0]
    where = {"GPU": "a GPU", "host": "a node's memory", "disk": "a node's disk"}[place.where]
    return (
        f"{where} would need {place.needed / GB:,.1f} GB ({largest.bytes / GB:,.1f} GB of it {largest.what}) and has "
        f"{place.available / GB:,.1f}"
    )


def training_problems(work: Work, choice: Choice, trainings: Sequence[Training]) -> Iterator[Problem]:
    """Yield what does not fit of the experiment's SAEs."""
    for training, sae in zip(trainings, work.experiment.sae, strict=True):
        if not training.memory.fits:
            change = _training_change(work, choice, sae)
            yield Problem(what=f"train {training.name}: {_too_much(training.memory)}", change=change, blocks=True)


def _training_change(work: Work, choice: Choice, sae: Sae) -> str:
    def fits(changed: Sae, shards: int = 1) -> bool:
        memory = train(work, choice.node, choice.assumptions, changed, "").memory
        shared = sum(need.bytes for need in memory.needs if need.what in _SHARDED)
        return memory.needed - shared + shared / shards <= memory.available

    def first(values: Sequence[int], test: Callable[[int], bool]) -> int | None:
        return next((value for value in values if test(value)), None)

    halves = [sae.batch_size >> power for power in (1, 2, 3) if sae.batch_size >> power]
    if batch := first(halves, lambda size: fits(sae.model_copy(update={"batch_size": size}))):
        return f"--batch-size {batch}"
    d_sae = sae.d_sae or sae.expansion * work.shape.d_model
    counts = [count for count in (2, 4, 8, 16) if d_sae % count == 0]
    if shards := first(counts, lambda count: fits(sae, count)):
        return f"--feature-shards {shards}: {shards} GPUs share out the features"
    smaller = [expansion for expansion in reversed(EXPANSIONS) if expansion * work.shape.d_model < d_sae]
    if width := first(smaller, lambda value: fits(sae.model_copy(update={"d_sae": None, "expansion": value}))):
        return f"--expansion {width}"
    return "fewer features: lower d_sae"


_SHARDED = {"weights", "Adam's moments", "gradients", "encoder in bfloat16", "slices of the encoder's output"}
"""what `--feature-shards` shares out"""
