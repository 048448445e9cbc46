"""The live table over a collection never changes what becomes of it."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kubesae.cli import workers
from kubesae.cli.workers import live
from kubesae.errors import Interrupted, StoreError
from kubesae.monitor import Row
from kubesae.store import open_store
from small_experiment import small_experiment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Give a function that sets what is done at each look but the first, on what seems a terminal."""

    def choose(then: Callable[[], None]) -> None:
        looks = 0

        def rows(*_: object) -> list[Row]:
            nonlocal looks
            looks += 1
            if looks > 1:
                then()
            return [Row("Shard 0")]

        monkeypatch.setattr("kubesae.monitor.collection_rows", rows)

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("kubesae.monitor.observe_collection", lambda *_: None)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)
    return choose


def test_a_look_that_fails_is_no_failure_of_the_work(
    look: Callable[[Callable[[], None]], None], tmp_path: Path
) -> None:
    looked = threading.Event()

    def fail() -> None:
        looked.set()
        raise StoreError("the store is down")

    look(fail)
    with live(open_store(str(tmp_path)), small_experiment(str(tmp_path)), [0]):
        assert looked.wait(10)
        time.sleep(0.05)


def test_an_interrupted_work_waits_for_no_look(look: Callable[[Callable[[], None]], None], tmp_path: Path) -> None:
    looked, answer = threading.Event(), threading.Event()

    def hang() -> None:
        looked.set()
        answer.wait(60)

    look(hang)
    began = time.monotonic()
    with pytest.raises(Interrupted), live(open_store(str(tmp_path)), small_experiment(str(tmp_path)), [0]):
        stop_once(looked)
    answer.set()
    assert time.monotonic() - began < 10


def stop_once(looked: threading.Event) -> None:
    assert looked.wait(10)
    raise Interrupted("stopped")
