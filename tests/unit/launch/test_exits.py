"""From the ends of workers to the exit code of the Pod."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from kubesae.errors import StoreError
from kubesae.launch.exits import EXIT_FOLDER, Exit, begin_worker, end_worker, outcome, read_exits
from kubesae.launch.run import EXIT_AGAIN, pod_code
from kubesae.launch.starts import Starts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize(
    ("codes", "stopped", "expected"),
    [
        ([0, 0], False, 0),
        ([2, 1], False, 2),
        ([1, 75, 2], True, 2),
        ([75, 1], False, 1),
        ([75, -9], False, 1),
        ([75, 75], False, 75),
        ([0, 75], False, 75),
        ([75, 1], True, 75),
        ([], True, 75),
    ],
)
def test_one_code_of_many(codes: list[int], *, stopped: bool, expected: int) -> None:
    assert outcome(codes, stopped=stopped) == expected


def test_the_ends_of_the_last_attempt_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXIT_FOLDER, str(tmp_path))
    for local, rank in (("0", "4"), ("1", "5")):
        monkeypatch.setenv("LOCAL_RANK", local)
        monkeypatch.setenv("RANK", rank)
        assert begin_worker()
        end_worker(75, ["stopped"])
    assert begin_worker()  # the second one again; then it is killed
    assert read_exits(tmp_path) == [Exit(4, 75, ("stopped",))]


def test_a_users_mistake_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXIT_FOLDER, str(tmp_path))
    end_worker(2, ["no such layer"])
    assert not begin_worker()
    assert read_exits(tmp_path) == [Exit(0, 2, ("no such layer",))]


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("code", "job", "pytorchjob"), [(0, 0, 0), (2, 2, 2), (75, 75, 143), (1, 1, 143)])
@pytest.mark.usefixtures("handlers")
def test_what_the_backends_get(code: int, job: int, pytorchjob: int) -> None:
    assert pod_code(code, again=False, starts=None) == job
    assert pod_code(code, again=True, starts=None) == pytorchjob


class Unanswered(Starts):
    """Of a store that has stopped to answer."""

    def __init__(self) -> None:
        pass

    def forget(self) -> None:
        raise StoreError("no answer")

    def may_go_on(self) -> bool:
        raise StoreError("no answer")


@pytest.mark.usefixtures("handlers")
def test_a_store_that_does_not_answer_makes_no_end_final() -> None:
    assert pod_code(1, again=True, starts=Unanswered()) == EXIT_AGAIN
    assert pod_code(0, again=True, starts=Unanswered()) == 0
    assert pod_code(2, again=True, starts=Unanswered()) == 2
