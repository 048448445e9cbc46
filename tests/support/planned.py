"""Experiments to plan, and the models of the planner's list, counted once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubesae.experiment import Experiment
from kubesae.plan import Assumptions, load_prices, plan_work
from kubesae.plan.count import count
from kubesae.plan.known import ModelConfig, known_models
from kubesae.plan.work import Machines, Work

if TYPE_CHECKING:
    from kubesae.plan import Report
    from kubesae.plan.shape import ModelShape

EXAMPLES = Path(__file__).parents[2] / "examples"
PRICES = load_prices()


@cache
def shape_of(name: str) -> ModelShape:
    """Return the shape of a model of the list."""
    known = known_models()[name]
    return count(ModelConfig(known.ids[0], known.source, known.config))


def experiment_of(name: str, **changes: Any) -> Experiment:
    """Return an experiment with a model of the list: the layer in the middle, a billion tokens in four shards."""
    shape = shape_of(name)
    values = {
        "data": "s3://bucket/planned",
        "model": shape.name,
        "layers": [shape.depth // 2],
        "context": min(2048, shape.max_context or 2048),
        "corpora": [{"name": "web", "source": "some/dataset"}],
    }
    return Experiment.model_validate(values | changes)


def work_for(name: str, **changes: Any) -> Work:
    """Return such an experiment with its model."""
    return Work.of(experiment_of(name, **changes), shape_of(name))


def machines_for(work: Work, gpu: str = "h100", gpus: int = 2, **assumed: Any) -> Machines:
    """Return machines for it."""
    return Machines.of(work, PRICES.node(gpu), gpus, Assumptions(**assumed))


def planned(name: str, *, gpu: str = "h100", gpus: int = 2, engine: str = "auto", **changes: Any) -> Report:
    """Return the plan of it."""
    return plan_work(work_for(name, **changes), PRICES, Assumptions(), gpu=gpu, gpus=gpus, engine=engine)


REFERENCE = {"layers": [45], "tokens": 1_000_000_000, "num_shards": 4}
"""what the reference experiment changes of Kimi-K2-Thinking's"""
