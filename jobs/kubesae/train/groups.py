"""Which SAEs can learn from one pass over the data: those that want the same rows in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.train.settings import Target


class DataOrder(NamedTuple):
    """Everything that decides which rows come when. Nothing else about an SAE may."""

    layer: int
    batch_size: int
    epochs: int
    shuffle_rows: int
    max_tokens: int | None
    validation: float
    order_seed: int


def order_of(target: Target) -> DataOrder:
    """Return the order in which an SAE wants the data."""
    settings = target.settings
    others = (getattr(settings, name) for name in DataOrder._fields if name != "layer")
    return DataOrder(target.layer, *others)


def shared_passes(targets: Sequence[Target]) -> list[list[Target]]:
    """Return the SAEs of each pass: passes and SAEs in the order in which they are first named."""
    passes: dict[DataOrder, list[Target]] = {}
    for target in targets:
        passes.setdefault(order_of(target), []).append(target)
    return list(passes.values())
