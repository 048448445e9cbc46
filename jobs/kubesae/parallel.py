"""Many things at once, results in order. Threads: hashing, numpy and the store let other threads run meanwhile."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

READERS = 16
"""threads for many small objects, where all the time is waiting for the store"""


def in_order(function: Callable[[T], R], items: Iterable[T], workers: int, *, ahead: int | None = None) -> Iterator[R]:
    """Yield `function(item)` for each item, in order, `workers` at a time; an exception ends the rest.

    At most `ahead` results wait to be taken, or are on their way (default: twice as many as workers).
    """
    most = 2 * workers if ahead is None else ahead
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
