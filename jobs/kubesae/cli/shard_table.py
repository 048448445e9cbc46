"""The live table of a collection: for each shard tokens / total, %, chunk, tokens/s, bytes and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kubesae.ledger import read_identity, shard_progress
from kubesae.ledger.plan import Plan
from kubesae.shards import codec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from kubesae.experiment import Experiment
    from kubesae.store import Store


class ShardTable:
    """Reads the ledger and shows it."""

    def __init__(self, store: Store, experiment: Experiment, shards: Sequence[int]) -> None:
        """Prepare the rows; `refresh` fills them."""
        self._store = store
        self._experiment = experiment
        self._progress = Progress(
            TextColumn("Shard {task.fields[shard]}:"),
            TextColumn("{task.completed:,.0f} / {task.total:,.0f} tokens ({task.percentage:.1f}%)"),
            BarColumn(bar_width=24),
            TextColumn("chunk {task.fields[chunk]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[size]}"),
            TimeRemainingColumn(),
            speed_estimate_period=120,
        )
        self._plan = Plan(
            experiment.tokens,
            experiment.num_shards,
            experiment.context,
            experiment.contexts_per_part,
            experiment.contexts_per_block,
        )
        self._tasks = {
            shard: self._progress.add_task("", total=self._plan.quota(shard), shard=shard, chunk=0, rate="", size="")
            for shard in shards
        }
        self._row_bytes: int | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        self.refresh()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def print(self, line: str) -> None:
        """Print a line above the table."""
        self._progress.console.print(line, highlight=False, markup=False)

    def refresh(self) -> None:
        """Read the ledger once."""
        for shard, task in self._tasks.items():
            state = shard_progress(self._store, self._plan, shard)
            speed = self._progress.tasks[task].speed
            self._progress.update(
                task,
                completed=state.rows,
                chunk=state.chunk(self._experiment.chunk),
                rate=f"{speed:,.0f} tokens/s" if speed else "",
                size=_bytes(state.rows * self._bytes_of_row()),
            )

    def _bytes_of_row(self) -> int:
        if self._row_bytes is None:
            identity = read_identity(self._store)
            if identity is None:
                return 0
            self._row_bytes = len(identity.layers) * identity.d_model * codec(identity.storage).disk.itemsize
        return self._row_bytes


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
