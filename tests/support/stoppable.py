"""What runs for a test and is stopped at the end of a `with`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Stoppable(ABC):
    """Runs from its construction until it is stopped. The first base of a class: others may have an `__exit__` too."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and wait for its end."""

    def __enter__(self) -> Self:
        """Nothing is left to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()
