"""Metrics segments in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kubesae.errors import DamagedError
from kubesae.ledger import keys
from kubesae.store import open_store
from kubesae.train.metrics import MetricsLog

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def line(step: int, kind: str = "step", **values: Any) -> dict[str, Any]:
    return {"kind": kind, "step": step, **values}


def test_segments_are_json_lines_named_by_their_last_step(store: Store) -> None:
    log = MetricsLog(store, "one")
    log.add(line(1, loss=0.5))
    log.add(line(2, loss=0.25))
    log.take(2)()
    assert (
        store.read(keys.metrics("one", 2))
        == b'{"kind":"step","loss":0.5,"step":1}\n{"kind":"step","loss":0.25,"step":2}\n'
    )
    log.take(3)()
    assert not store.exists(keys.metrics("one", 3))


def test_a_step_flushed_twice_keeps_both(store: Store) -> None:
    log = MetricsLog(store, "one")
    log.add(line(2))
    log.take(2)()
    log.add(line(2, "epoch"))
    log.take(2)()
    assert MetricsLog(store, "one").read() == [line(2), line(2, "epoch")]


def test_a_resumed_run_forgets_what_came_after(store: Store) -> None:
    log = MetricsLog(store, "one")
    for step in (2, 4, 6):
        log.add(line(step, attempt=1))
        log.take(step)()
    log.forget_after(4)
    log.add(line(5, attempt=2))
    assert [entry["step"] for entry in log.read()] == [2, 4, 5]


def test_the_later_of_two_equal_lines_counts(store: Store) -> None:
    log = MetricsLog(store, "one")
    for attempt in (1, 2):
        log.add(line(2, "epoch", attempt=attempt))
        log.take(2)()
    assert [entry["attempt"] for entry in log.read()] == [2]


def test_a_broken_segment_is_named(store: Store) -> None:
    store.put(keys.metrics("one", 7), b'{"kind":"step"}\n')
    with pytest.raises(DamagedError, match=r"00000007.jsonl.*only curves are lost"):
        MetricsLog(store, "one").read()
