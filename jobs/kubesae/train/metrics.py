"""The metrics of a training, as segments of JSON lines in the store: `sae/<name>/metrics/<step>.jsonl`.

A segment holds what was logged since the one before it, up to its step, and is written with that step's checkpoint.
A line of kind "step" averages the steps since the last such line; one of kind "epoch" holds an epoch's validation.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import canonical_json
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.store import Store

Line = dict[str, Any]


class MetricsLog:
    """Collects lines and writes them as segments."""

    def __init__(self, store: Store, name: str) -> None:
        """Log for the SAE `name`."""
        self._store = store
        self._name = name
        self._lines: list[Line] = []

    def add(self, line: Line) -> None:
        """Take in a line; `kind` and `step` identify it."""
        self._lines.append(line)

    def take(self, step: int) -> Callable[[], None]:
        """Return what writes the lines so far as the segment that ends at `step`, after what that holds already."""
        lines, self._lines = self._lines, []
        data = b"".join(canonical_json(line) + b"\n" for line in lines)
        return partial(self._write, keys.metrics(self._name, step), data)

    def _write(self, key: str, data: bytes) -> None:
        if not data:
            return
        try:
            before = self._store.read(key)
        except MissingError:
            before = b""
        self._store.put(key, before + data)

    def forget_after(self, step: int) -> None:
        """Remove the segments of an attempt that went further than the checkpoint from which training resumes."""
        for key in self._segments():
            if key > keys.metrics(self._name, step):
                self._store.delete(key)

    def read(self) -> list[Line]:
        """Return all lines by step; where an interrupted attempt and its successor logged the same, the later one.

        Raises:
            DamagedError: a segment is not JSON lines.

        """
        lines: dict[tuple[str, int], Line] = {}
        for key in self._segments():
            for text in self._store.read(key).splitlines():
                try:
                    line: Line = json.loads(text)
                    lines[line["kind"], line["step"]] = line
                except (ValueError, KeyError, TypeError) as error:
                    raise DamagedError(
                        f"{self._store.url_of(key)} is no metrics segment ({error!r}). Delete it: only curves are lost."
                    ) from error
        return sorted([*lines.values(), *self._lines], key=lambda line: (line["step"], line["kind"] == "epoch"))

    def _segments(self) -> list[str]:
        return [key for key in self._store.list(f"{keys.sae_folder(self._name)}metrics/") if key.endswith(".jsonl")]
