"""SIGKILL at every step of collect, prepare and train: started again, each ends with an undisturbed run's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fault_experiment import VALUES
from faults import objects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fault_experiment import Scene

pytestmark = pytest.mark.fault

COLLECT = (
    "in forward",
    "in moments of layer 1",
    "after moments of layer 1",
    "in tar of layer 1",
    "after tar of layer 1",  # between the layers
    "in tar of layer 2",
    "before record",
    "in record",
    "after record",
)
_SEGMENT, _SHARD, _ONCE = (1, 2, 4), (1, 2, 1), (1, 1, 1)  # four segments are needed, and two shards
PREPARE = {
    "tokenise": _SEGMENT,
    "in segment ids": _SEGMENT,
    "after segment documents": _SEGMENT,
    "in segment": _SEGMENT,
    "after segment": _SEGMENT,
    "in shard ids": _SHARD,
    "after shard ids": _SHARD,
    "after shard documents": _SHARD,
    "in dealt": _SHARD,
    "after dealt": _SHARD,
    "after tokenizer": _ONCE,
    "in manifest": _ONCE,
    "after manifest": _ONCE,
}
_STEP = (9, 1, 14)
TRAIN = {
    "step": _STEP,
    "after metrics": _STEP,
    "in trainer tensors": _STEP,
    "after trainer tensors": _STEP,
    "after weights": _STEP,
    "after metadata": _STEP,
    "in checkpoint": _STEP,
    "after checkpoint": _STEP,
    "deletion": _STEP,
    "before pointer": _ONCE,
    "in pointer": _ONCE,
    "after pointer": _ONCE,
    "before report": _ONCE,
}


@pytest.mark.parametrize("point", COLLECT)
def test_collect(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    collect = scene("collect", prefix)
    for passage in (2, 1, 3):
        collect.kill_at(point, passage)
    collect.finish()
    assert collect.compare() == []


@pytest.mark.parametrize("point", PREPARE)
def test_prepare(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    for run, passage in enumerate(PREPARE[point]):  # each from the beginning: the manifest is written once
        prepare = scene("prepare", f"{prefix}-{run}")
        prepare.kill_at(point, passage)
        prepare.finish()
        assert prepare.compare() == []


@pytest.mark.parametrize("point", TRAIN)
def test_train(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    train = scene("train", prefix)
    for passage in TRAIN[point]:
        train.kill_at(point, passage)
    train.finish()
    assert train.compare() == []


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize(("point", "passages"), [("in part", (2, 5, 1)), ("in completion", (1, 1, 1))])
def test_an_upload_in_parts(
    scene: Callable[..., Scene], s3_prefix: str, tmp_path: Path, point: str, passages: tuple[int, ...]
) -> None:
    """A checkpoint of 15 MB; what is left of an upload stays invisible, and is listed for `kubesae gc`."""
    sae = VALUES["sae"][0] | {"d_sae": 20_000, "epochs": 2, "batch_size": 4096}
    whole = scene("train", str(tmp_path / "whole"), sae=[sae])
    whole.finish()
    train = scene("train", s3_prefix, sae=[sae])
    train.expected = objects(whole.store)
    for passage in passages:
        train.kill_at(point, passage, part_bytes=5 << 20)
    train.finish(part_bytes=5 << 20)
    assert train.compare() == []
    assert len(train.store.open_uploads()) >= (len(passages) if point == "in part" else 0)
