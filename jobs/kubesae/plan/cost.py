"""The bill: machines, storage, requests, egress. Machines are paid whole, by the hour, idle GPUs included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.plan.prices import GB, tiered
from kubesae.plan.report import Cost
from kubesae.units import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.experiment import Sae
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.prices import Node, StorePrices
    from kubesae.plan.report import Collection, Data, Reload, Training

HOUR = 3600.0
_RESTART = 150.0
"""seconds of training that a preemption loses on average: half of what is redone at most (5 minutes)"""


def spot_hour(node: Node, assumptions: Assumptions) -> float:
    """Return dollars an hour of a spot machine: of the price file, else the assumed share of the price on demand."""
    if node.spot_dollars_per_hour is not None:
        return node.spot_dollars_per_hour
    return node.dollars_per_hour * assumptions.spot_share


def spot_factor(assumptions: Assumptions, lost_seconds: float) -> float:
    """Return how much longer work takes on spot machines that lose `lost_seconds` with each preemption."""
    return 1.0 + assumptions.preemptions_per_day * lost_seconds / (24 * HOUR)


def collecting(collection: Collection, reload: Reload, node: Node, assumptions: Assumptions) -> Cost:
    """Return what collecting costs."""
    per_slot = collection.tokens_per_second / collection.slots if collection.slots else 0.0
    redone = reload.redone_tokens / per_slot if per_slot else 0.0
    factor = spot_factor(assumptions, reload.new_node_seconds + redone)
    return Cost(
        what="collect",
        on_demand=collection.node_hours * node.dollars_per_hour,
        spot=collection.node_hours * factor * spot_hour(node, assumptions),
        how=f"{collection.nodes} x {node.instance}, {duration(collection.seconds)}",
        counted=True,
    )


def training_seconds(trainings: Sequence[Training], saes: Sequence[Sae]) -> float:
    """Return seconds of all trainings: those that want the same rows in the same order share one reading of them."""
    passes: dict[tuple[object, ...], list[Training]] = {}
    for training, sae in zip(trainings, saes, strict=True):
        passes.setdefault(order_of(sae), []).append(training)
    return sum(
        max(sum(training.compute_seconds for training in group), *(training.reading_seconds for training in group))
        for group in passes.values()
    )


def order_of(sae: Sae) -> tuple[object, ...]:
    """Return what decides which rows an SAE learns from, and in which order (`train/groups.py`)."""
    return (sae.layer, sae.batch_size, sae.epochs, sae.shuffle_rows, sae.max_tokens, sae.validation, sae.order_seed)


def training(seconds: float, node: Node, assumptions: Assumptions) -> Cost:
    """Return what training costs: the GPUs' share of a machine."""
    gpus = assumptions.train_gpus
    hours = seconds / HOUR
    share = gpus / node.gpus
    return Cost(
        what="train",
        on_demand=hours * share * node.dollars_per_hour,
        spot=hours
        * share
        * spot_factor(assumptions, _RESTART + assumptions.node_seconds + assumptions.start_seconds)
        * spot_hour(node, assumptions),
        how=f"{gpus} of {node.gpus} GPUs of one {node.instance}, {duration(seconds)}",
        counted=True,
    )


def storing(data: Data, prices: StorePrices, assumptions: Assumptions) -> tuple[Cost, ...]:
    """Return what keeping, requests and, if the data leaves the provider once, egress cost."""
    gb = data.stored_bytes / GB
    kept = tiered(prices.storage_tiers, gb) * assumptions.months_kept
    requests = (
        data.write_requests * prices.dollars_per_1000_writes + data.read_requests * prices.dollars_per_1000_reads
    ) / 1000
    egress = tiered(prices.egress_tiers, gb)
    months = f"{assumptions.months_kept:g} month{'' if assumptions.months_kept == 1 else 's'}"
    return (
        Cost(what="store", on_demand=kept, spot=kept, how=f"{gb:,.0f} GB for {months}", counted=True),
        Cost(
            what="requests",
            on_demand=requests,
            spot=requests,
            how=f"{data.write_requests:,} writes, {data.read_requests:,} reads",
            counted=True,
        ),
        Cost(
            what="egress",
            on_demand=egress,
            spot=egress,
            how="if all of it leaves the provider once; nothing within its region",
            counted=False,
        ),
    )
