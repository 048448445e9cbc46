"""Many things at once, results in order; or one beside the rest.

Threads: hashing, numpy, torch and the store let other threads run meanwhile.
"""

from __future__ import annotations

import threading
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


class Background:
    """Does one thing at a time beside the rest. Used by one thread; what is on its way ends with the process."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], object]) -> None:
        """Begin `job`, once the one before it has ended; raises what that raised."""
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(job,), name="background", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for what is on its way; raises what it raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _do(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            self._failure = error
