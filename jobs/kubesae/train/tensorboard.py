"""The metrics of a training as event files of TensorBoard: `sae/<name>/tensorboard/`.

    tensorboard --logdir runs/demo/sae                  all SAEs, a run each

    events.out.tfevents.00012000.train          what was logged of training since the file before, up to step 12000
    events.out.tfevents.00012000.validation     an epoch that ended there

TensorBoard reads the files of a folder in the order of their names. They are written and forgotten with the segments of
`metrics`. A validation that an interrupted attempt had done already is done again and gives the same numbers; it has a
file of its own so that it replaces the one that is there, where appending would double its points.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from kubesae.ledger import keys
from kubesae.train.tensorboard_events import first_record, scalars_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.store import Store
    from kubesae.train.metrics import Line

# What a kind of line is called; the name of each number begins with it.
_KINDS = {"step": "train", "epoch": "validation"}
# What says where in the training a line is, rather than how it goes.
_PLACE = frozenset({"kind", "step", "epoch"})


class TensorBoardLog:
    """Collects lines and writes them as event files; a `trackers.Tracker`."""

    def __init__(self, store: Store, name: str) -> None:
        """Log for the SAE `name`."""
        self._store = store
        self._name = name
        self._records: dict[str, list[bytes]] = {}

    def add(self, line: Line) -> None:
        """Take in a line: a point of each of its numbers, at the time of now."""
        kind = _KINDS[line["kind"]]
        values = {
            f"{kind}/{name}": float(value) for name, value in line.items() if name not in _PLACE and value is not None
        }
        self._records.setdefault(kind, []).append(scalars_record(time.time(), line["step"], values))

    def take(self, step: int) -> Callable[[], None]:
        """Return what writes the lines so far as the files that end at `step`."""
        records, self._records = self._records, {}
        return partial(self._write, step, records)

    def _write(self, step: int, records: dict[str, list[bytes]]) -> None:
        for kind, these in records.items():
            self._store.put(keys.tensorboard(self._name, step, kind), first_record(time.time()) + b"".join(these))

    def forget_after(self, step: int) -> None:
        """Remove the files of an attempt that went further than the checkpoint from which training resumes."""
        last = max(keys.tensorboard(self._name, step, kind) for kind in _KINDS.values())
        for key in self._store.list(keys.tensorboard_folder(self._name)):
            if key > last:
                self._store.delete(key)
