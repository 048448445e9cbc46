"""Many things at once give their results in order, and few of them wait; one goes on beside the rest."""

from __future__ import annotations

import threading
import time

import pytest

from kubesae.parallel import Background, in_order


def test_few_results_wait_to_be_taken() -> None:
    """A result is as large as a part's moments, and there are tens of thousands."""
    begun = 0

    def begin(item: int) -> int:
        nonlocal begun
        begun += 1
        return item

    for taken, result in enumerate(in_order(begin, range(100), 2)):
        time.sleep(0.001)
        assert (result, begun <= taken + 1 + 2 * 2) == (taken, True)


def test_an_exception_ends_the_rest() -> None:
    begun: list[int] = []

    def fail_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    results = in_order(fail_at_three, range(100), 1)
    with pytest.raises(ValueError, match="three"):
        list(results)
    assert len(begun) < 10


def test_something_is_done_beside_the_rest() -> None:
    beside, go, done = Background(), threading.Event(), []
    beside.start(lambda: (go.wait(10), done.append(1)))
    assert beside.busy
    go.set()
    beside.start(lambda: done.append(2))  # after the first
    beside.wait()
    assert done == [1, 2]
    assert not beside.busy


def test_what_fails_beside_the_rest_is_raised_once() -> None:
    beside, done = Background(), []

    def fail() -> None:
        raise ValueError("three")

    beside.start(fail)
    with pytest.raises(ValueError, match="three"):
        beside.start(lambda: done.append(1))
    beside.wait()
    assert done == []
    beside.start(fail)
    with pytest.raises(ValueError, match="three"):
        beside.wait()
    beside.wait()
