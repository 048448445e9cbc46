"""Averages of steps between two lines of metrics, and how fast the steps came."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubesae.train.learner import StepResult
    from kubesae.train.metrics import Line
    from kubesae.train.reader import Reader


class Pace:
    """Averages the results of one SAE's steps. Rates are of the pass that it shares with others."""

    def __init__(self, reader: Reader) -> None:
        """Begin now."""
        self.results: list[StepResult] = []
        self.last: StepResult | None = None
        self.speed = 0.0
        self._reader = reader
        self.begin()

    def begin(self) -> None:
        """Measure times from now on."""
        self._began, self._waited, self._rows = time.monotonic(), self._reader.waited, 0

    def add(self, result: StepResult, rows: int) -> None:
        """Take in a step."""
        self.results.append(result)
        self.last = result
        self._rows += rows
        speed = self._rows / (time.monotonic() - self._began)
        self.speed = speed if self.speed == 0 else 0.9 * self.speed + 0.1 * speed

    def line(self) -> Line:
        """Return the averages since the last line."""
        count, last = len(self.results), self.results[-1]
        means = {
            name: sum(getattr(result, name) for result in self.results) / count
            for name in ("loss", "mse", "l0", "gradient_norm")
        }
        seconds = time.monotonic() - self._began
        line = {
            "lr": last.lr,
            "l1_coeff": last.l1_coeff,
            "auxk_dead": last.dead,
            "tokens_per_second": round(self._rows / seconds, 1),
            "data_wait_share": round((self._reader.waited - self._waited) / seconds, 4),
            **means,
        }
        self.results = []
        self.begin()
        return line
