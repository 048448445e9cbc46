"""SIGKILL at every step of interpret, one worker and several, and a bad S3 service: the bytes are those of one run."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from fault_worker import Fault
from http_faults import Answer
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fault_experiment import Scene
    from http_faults import HttpFaults

pytestmark = pytest.mark.fault

WORKERS, MANY = 3, 8
ENCODING = ("count", "before codes", "in codes", "after codes", "in unit", "after unit")
MERGING = ("in table", "after table", "in interpretation", "after interpretation", "deletion")
ANSWERING = ("in answer", "after answer", "in answers", "after page file", "in page")
PAGE = keys.page("small")


@pytest.mark.parametrize("point", ENCODING)
def test_killed_while_it_encodes(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    interpret = scene("interpret", prefix)
    for passage in (2, 1, 3):
        interpret.kill_at(point, passage)
    interpret.finish()
    assert interpret.compare() == []


@pytest.mark.parametrize("point", MERGING + ANSWERING)
def test_killed_while_it_merges_or_answers(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    interpret = scene("interpret", prefix)
    interpret.kill_at(point, 1)
    worker = interpret.finish()
    assert "count" not in worker.passages  # all is encoded
    assert interpret.compare() == []


def start_all(interpret: Scene, of: int, faults: dict[int, Fault]) -> list[int]:
    """Run workers beside each other; return their exit codes."""
    workers = [interpret.start("--index", i, "--of", of, fault=faults.get(i), pause=0.01) for i in range(of)]
    return [worker.wait() for worker in workers]


def slow_but(every: Iterable[str], *quick: str) -> list[Any]:
    return [pytest.param(one, marks=() if one in quick else pytest.mark.slow) for one in every]


@pytest.mark.parametrize("point", slow_but(ENCODING, "in codes", "after unit"))
def test_one_of_three_dies_while_the_others_work(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    interpret = scene("interpret", prefix)
    assert start_all(interpret, WORKERS, {1: Fault(point, 2)}) == [0, -signal.SIGKILL, 0]
    assert not interpret.store.exists(PAGE)
    interpret.faults.count(f"interpret, three workers: kill {point}")
    assert start_all(interpret, WORKERS, {}) == [0] * WORKERS
    assert interpret.compare() == []


@pytest.mark.parametrize("point", slow_but(MERGING + ANSWERING, "in interpretation", "in answers"))
def test_whoever_merges_dies(scene: Callable[..., Scene], prefix: str, point: str) -> None:
    interpret = scene("interpret", prefix)
    codes = start_all(interpret, WORKERS, dict.fromkeys(range(WORKERS), Fault(point)))
    assert -signal.SIGKILL in codes
    assert set(codes) <= {0, -signal.SIGKILL}
    interpret.faults.count(f"interpret, three workers: kill {point}", codes.count(-signal.SIGKILL))
    assert start_all(interpret, WORKERS, {}) == [0] * WORKERS
    assert interpret.compare() == []


@pytest.mark.slow
def test_eight_that_are_killed_again_and_again(scene: Callable[..., Scene], prefix: str) -> None:
    interpret = scene("interpret", prefix)
    for passage in (1, 1, 2):
        codes = start_all(interpret, MANY, dict.fromkeys(range(MANY), Fault("count", passage)))
        interpret.faults.count("interpret, eight workers: kill count", codes.count(-signal.SIGKILL))
    assert start_all(interpret, MANY, {}) == [0] * MANY
    assert interpret.compare() == []


ANSWERS = {
    "503 on codes": Answer(503, "SlowDown", "PUT", "/codes/", times=4),
    "answer lost after codes": Answer(500, "InternalError", "PUT", "/codes/", times=3, after=True),
    "answer lost after a unit": Answer(500, "InternalError", "PUT", "/units/", times=3, after=True),
    "cut codes": Answer(method="GET", key="/codes/", times=2, truncated=True),
    "cut unit": Answer(method="GET", key="/units/", times=2, truncated=True),
    "503 on a deletion": Answer(503, "SlowDown", "DELETE", "/units/", times=2),
}


@pytest.mark.s3
@pytest.mark.parametrize("kind", slow_but(ANSWERS, "503 on codes", "answer lost after codes"))
def test_answers_of_a_bad_day(scene: Callable[..., Scene], s3_prefix: str, service: HttpFaults, kind: str) -> None:
    interpret = scene("interpret", s3_prefix)
    answer = ANSWERS[kind]
    service.next(answer)
    worker = interpret.finish()
    assert answer.given == answer.times
    assert "trying again in" in worker.output
    interpret.faults.count(f"service: interpret, {kind}")
    assert interpret.compare() == []
