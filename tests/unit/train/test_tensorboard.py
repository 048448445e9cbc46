"""Event files for TensorBoard: their bytes, and that resuming leaves no point twice. That it reads them: interop."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import pytest

from kubesae.ledger import keys
from kubesae.store import open_store
from kubesae.train.metrics import MetricsLog
from kubesae.train.tensorboard import TensorBoardLog
from kubesae.train.tensorboard_events import crc32c, first_record, scalars_record
from small_training import TOPK, Training
from tensorboard_points import fields, points, records

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "output"))


def shown(store: Store, name: str) -> list[tuple[str, int, float]]:
    """Return all points in the order in which TensorBoard reads them."""
    return [point for key in sorted(store.list(keys.tensorboard_folder(name))) for point in points(store.read(key))]


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],  # RFC 3720, B.4
)
def test_checksums_are_those_of_the_standard(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 2**31, 2**40])
def test_an_event_gives_back_what_was_written(step: int) -> None:
    data = first_record(1.5) + scalars_record(1234.5, step, {"train/loss": 0.25, "ä" * 100: -3.0})
    assert list(points(data)) == [("train/loss", step, 0.25), ("ä" * 100, step, -3.0)]
    event = dict(fields(list(records(data))[1]))
    assert struct.unpack("<d", event[1]) == (1234.5,)


def test_every_number_of_the_metrics_is_shown(training: Training) -> None:
    result = training.run(TOPK)
    expected = {
        (f"{'train' if line['kind'] == 'step' else 'validation'}/{name}", line["step"]): value
        for line in MetricsLog(training.output, result.name).read()
        for name, value in line.items()
        if name not in {"kind", "step", "epoch"}
    }
    found = shown(training.output, result.name)
    assert {(tag, step): value for tag, step, value in found} == pytest.approx(expected, rel=1e-6)
    assert len(found) == len(expected)
    names = [key.rpartition("/")[2] for key in training.output.list(keys.tensorboard_folder(result.name))]
    assert all(re.fullmatch(r"events\.out\.tfevents\.\d{8}\.(train|validation)", name) for name in names)


def test_steps_ascend_in_the_order_of_the_files(training: Training) -> None:
    result = training.run(TOPK)
    steps: dict[str, list[int]] = {}
    for tag, step, _ in shown(training.output, result.name):
        steps.setdefault(tag, []).append(step)
    assert all(numbers == sorted(set(numbers)) for numbers in steps.values())


def add(log: TensorBoardLog, kind: str, step: int, loss: float) -> None:
    log.add({"kind": kind, "step": step, "epoch": 1, "loss": loss})


def test_what_went_further_than_the_checkpoint_is_forgotten(store: Store) -> None:
    log = TensorBoardLog(store, "one")
    for step in (2, 4, 6):
        add(log, "step", step, 1.0)
        add(log, "epoch", step, 1.0)
        log.take(step)()
    log.forget_after(4)
    assert {step for _, step, _ in shown(store, "one")} == {2, 4}
    assert len(shown(store, "one")) == 4


def test_a_validation_that_is_done_again_replaces_the_one_before(store: Store) -> None:
    for _ in range(2):  # killed between the metrics and the checkpoint
        log = TensorBoardLog(store, "one")
        log.forget_after(2)
        add(log, "epoch", 2, 0.5)
        log.take(2)()
    assert shown(store, "one") == [("validation/loss", 2, 0.5)]


def test_nothing_is_written_for_nothing(store: Store) -> None:
    TensorBoardLog(store, "one").take(3)()
    assert store.list() == {}
