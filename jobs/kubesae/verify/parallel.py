"""Many things at once, results in order. Threads: hashing, numpy and the store let other threads run meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    """Yield `function(item)` for each item, in order, `workers` at a time; an exception ends the rest."""
    pool = ThreadPoolExecutor(workers)
    try:
        for future in [pool.submit(function, item) for item in items]:
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
