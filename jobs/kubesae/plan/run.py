"""Plan: whether it fits, which engine, how long, how much, before a GPU is paid for.

    kubesae plan experiment.yaml

From the model's config alone: no weight is read or fetched. Everything but the count of parameters is arithmetic on
dataclasses, and every number that is neither in the experiment, the config nor the price file is an assumption that
can be set.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from kubesae.plan import cost
from kubesae.plan.calibration import calibrated
from kubesae.plan.count import count
from kubesae.plan.fit import problems, training_problems
from kubesae.plan.guidance import warnings
from kubesae.plan.known import find_config
from kubesae.plan.report import Kind, LayerRun, Model, Offer, Report
from kubesae.plan.scenario import Choice, scenario
from kubesae.plan.shape import Group, by_kind, runs, total
from kubesae.plan.storing import stored
from kubesae.plan.training import own_trainings, widths
from kubesae.plan.work import HERE, Work

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubesae.experiment import Experiment
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.calibration import Calibration
    from kubesae.plan.prices import Prices
    from kubesae.plan.shape import ModelShape

DEFAULT_GPU, DEFAULT_GPUS = "h100", 2


def work_of(experiment: Experiment) -> Work:
    """Return an experiment with its model counted.

    Raises:
        ConfigError: there is no such model, transformers cannot build it, or it does not go with the experiment.
        HubError: the hub does not answer.

    """
    return Work.of(experiment, count(find_config(experiment), trust_remote_code=experiment.trust_remote_code))


def plan_work(
    work: Work,
    prices: Prices,
    assumptions: Assumptions,
    *,
    gpu: str = DEFAULT_GPU,
    gpus: int | None = None,
    engine: str = "auto",
    calibration: Calibration | None = None,
) -> Report:
    """Return the plan of an experiment.

    Args:
        work: the experiment, with its model counted.
        prices: machines and what they cost.
        assumptions: everything else.
        gpu: name of a machine of the prices, or `here`.
        gpus: GPUs of a slot (default: 2, or as many as there are).
        engine: `auto`, `resident` or `streamed`.
        calibration: what was measured on this machine.

    Raises:
        ConfigError: there is no such GPU, or a slot wants more of them than a machine has.

    """
    found = calibrated(work, prices, assumptions, gpu, calibration)
    choice = Choice(
        found.node, gpus or min(DEFAULT_GPUS, found.node.gpus), engine, found.assumptions, found.model_flops
    )
    report = _report(work, choice, prices, tuple(_offers(work, choice, prices, assumptions)))
    return report.model_copy(update={"calibrated": found.words})


def _report(work: Work, choice: Choice, prices: Prices, offers: tuple[Offer, ...]) -> Report:
    """Return the plan of a choice; `offers` are what others would come to."""
    main, experiment = scenario(work, choice), work.experiment
    data = stored(work, main.collection.tokens_per_second)
    own = own_trainings(work, choice.node, choice.assumptions)
    bill = (
        main.cost,
        cost.training(cost.training_seconds(own, experiment.sae), choice.node, choice.assumptions),
        *(cost.storing(data, prices.store, choice.assumptions) if experiment.data.startswith("s3://") else ()),
    )
    return Report(
        name=experiment.name,
        tokens=experiment.tokens,
        layers=experiment.layers,
        context=experiment.context,
        gpu=choice.node.gpu,
        instance=choice.node.instance,
        gpus_per_slot=choice.gpus,
        calibrated=None,
        model=model_report(work),
        engines=main.engines,
        streaming=main.streaming,
        collection=main.collection,
        reload=main.reload,
        data=data,
        trainings=own,
        widths=widths(work, choice.node, choice.assumptions),
        costs=bill,
        on_demand=sum(line.on_demand for line in bill if line.counted),
        spot=sum(line.spot for line in bill if line.counted),
        offers=offers,
        problems=(*problems(work, choice, main, prices.nodes), *training_problems(work, choice, own)),
        warnings=warnings(work, choice, main, data, own, bill),
        assumptions=choice.assumptions,
        prices_as_of=prices.as_of,
        prices_source=choice.node.source,
    )


def _offers(work: Work, choice: Choice, prices: Prices, assumptions: Assumptions) -> Iterator[Offer]:
    """Yield the experiment on every machine there is: with as many GPUs a slot, and nothing that was measured here."""
    here = choice.node.name == HERE
    rented = replace(choice, assumptions=assumptions, measured=None, gpus=DEFAULT_GPUS if here else choice.gpus)
    choices = [replace(rented, node=node, gpus=min(rented.gpus, node.gpus)) for node in prices.nodes]
    for one in [choice, *choices] if here else choices:
        node, found = one.node, scenario(work, one)
        fits = found.engine is not None
        yield Offer(
            gpu=node.name,
            instance=node.instance,
            engine=found.collection.engine,
            nodes=found.collection.nodes,
            hours=found.collection.seconds / 3600,
            on_demand=found.cost.on_demand if fits else 0.0,
            spot=found.cost.spot if fits else 0.0,
        )


def model_report(work: Work) -> Model:
    """Return what the plan says of the model."""
    shape = work.shape
    whole, loaded = shape.whole, total(shape.loaded(work.depth))
    return Model(
        name=shape.name,
        origin=shape.origin,
        architecture=shape.model_type,
        d_model=shape.d_model,
        layers=shape.depth,
        vocab_size=shape.vocab_size,
        experts=shape.experts,
        active_experts=shape.active_experts,
        parameters=whole.parameters,
        active_parameters=whole.active,
        stored=shape.stored,
        quantization=shape.quantization,
        checkpoint_bytes=whole.disk,
        prediction_bytes=prediction_bytes(shape),
        kinds=_kinds(shape.groups),
        loaded_layers=work.depth,
        loaded_parameters=loaded.parameters,
        loaded_bytes=loaded.disk,
        loaded_active_parameters=loaded.active,
        expanded_bytes=loaded.parameters * work.itemsize,
        flops_per_token=work.flops,
        by_layer=tuple(_by_layer(work)),
    )


def prediction_bytes(shape: ModelShape) -> int:
    """Return bytes of layers that predict several tokens at once.

    Each has a layer, a matrix that joins two hidden states, and copies of embeddings and head (arXiv 2412.19437,
    section 2.2; the copies are those of DeepSeek-V3's checkpoint).
    """
    if not shape.prediction_layers:
        return 0
    copies = total((*shape.before, *(group for group in shape.after if group.kind == "head"))).disk
    joining = 2 * shape.d_model * shape.d_model * 2
    return shape.prediction_layers * (shape.layers[-1].whole.disk + copies + joining)


def _kinds(groups: Iterable[Group]) -> tuple[Kind, ...]:
    return tuple(
        Kind(kind=kind, parameters=group.parameters, active=group.active, checkpoint_bytes=group.disk)
        for kind, group in by_kind(groups).items()
    )


def _by_layer(work: Work) -> Iterator[LayerRun]:
    shape, before = work.shape, total(work.shape.before)
    yield LayerRun(
        first=-1,
        last=-1,
        loaded=True,
        kinds=_kinds(shape.before),
        parameters=before.parameters,
        active=before.active,
        checkpoint_bytes=before.disk,
        flops_per_token=0.0,
    )
    for first, last, layer in runs(shape.layers):
        edges = sorted({first, min(max(first, work.depth), last + 1), last + 1})
        for start, end in pairwise(edges):
            yield LayerRun(
                first=start,
                last=end - 1,
                loaded=start < work.depth,
                kinds=_kinds(layer.groups),
                parameters=layer.whole.parameters,
                active=layer.whole.active,
                checkpoint_bytes=layer.whole.disk,
                flops_per_token=layer.flops(work.experiment.context),
            )
