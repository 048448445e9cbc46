"""What receives the metrics of a training besides the screen: segments of JSON lines, and TensorBoard beside them.

A tracker takes lines as they come, and keeps what it has when a checkpoint is written; on resume it forgets what an
attempt wrote that went further. So what it shows never has a point twice, or two that differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kubesae.train.metrics import MetricsLog
from kubesae.train.tensorboard import TensorBoardLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.store import Store
    from kubesae.train.metrics import Line


class Tracker(Protocol):
    """Takes lines of metrics (`metrics`)."""

    def add(self, line: Line) -> None:
        """Take in a line; `kind` and `step` identify it."""

    def take(self, step: int) -> Callable[[], None]:
        """Return what keeps the lines so far, to be called before the checkpoint of `step` is written."""

    def forget_after(self, step: int) -> None:
        """Remove what was kept after `step`: training goes on from that checkpoint."""


def trackers_of(store: Store, name: str) -> tuple[MetricsLog, TensorBoardLog]:
    """Return the trackers of the SAE `name`."""
    return MetricsLog(store, name), TensorBoardLog(store, name)
