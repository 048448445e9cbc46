"""One SAE in a pass over the data: its learner, where it stands, and its own checkpoints, metrics and lines.

Everything that outlives the process is its own, so that each SAE of a pass can be resumed, evaluated and interpreted by
itself. D = d_model, B = rows of this rank's share of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from kubesae.sae.metrics import PCA_RANK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from kubesae.parallel import Background
    from kubesae.sae import Normaliser
    from kubesae.train.checkpoint import Checkpoints, Progress, Snapshot
    from kubesae.train.console import Console
    from kubesae.train.learner import Evaluation, Learner
    from kubesae.train.metrics import Line
    from kubesae.train.pace import Pace
    from kubesae.train.reader import Batch
    from kubesae.train.trackers import Tracker

# L0 may be off the wanted one by this share and still count as found.
_L0_TOLERANCE = 0.1


@dataclass
class Trainee:
    """An SAE that is trained.

    Attributes:
        name: of the SAE.
        learner: what learns.
        normaliser: how its inputs are normalised.
        progress: where it stands.
        checkpoints: where it is kept; of the first rank only.
        trackers: take its metrics, and keep them with each checkpoint.
        console: where its lines go.
        about: what metadata.json says of any checkpoint of it.
        pace: averages its steps for the next line of metrics.
        first: whether this rank writes.
        unsaved: whether it has learned something since its last checkpoint.
        diverged: what there is to say of it once its loss is no longer finite; it then learns no more.

    """

    name: str
    learner: Learner
    normaliser: Normaliser
    progress: Progress
    checkpoints: Checkpoints
    trackers: Sequence[Tracker]
    console: Console
    about: dict[str, Any]
    pace: Pace
    first: bool
    unsaved: bool = False
    diverged: str | None = None

    def begin_epoch(self) -> None:
        """Begin the part of an epoch that is left."""
        if self.progress.position == 0:
            self.learner.begin_epoch()
        self.pace.begin()

    def has_had(self, batch: Batch) -> bool:
        """Whether the batch of its epoch was taken before a checkpoint that others of the pass have not come to."""
        return batch.position <= self.progress.position

    def step(self, x_BD: Tensor, batch: Batch) -> None:
        """Learn from a batch, normalised.

        Raises:
            ConfigError: the loss is no longer finite.

        """
        progress, rows = self.progress, batch.total_rows
        result = self.learner.step(x_BD, rows)
        progress.position = batch.position
        progress.loss_sum += result.loss * rows
        progress.active_sum += result.l0 * rows
        progress.rows += rows
        self.pace.add(result, rows)
        self.unsaved = True

    def log_steps(self, at_least: int) -> None:
        """Log the steps since the last line, when there are so many."""
        if len(self.pace.results) >= max(1, at_least):
            line = {"step": self.learner.steps, "epoch": self.progress.epoch + 1, "rows": self.learner.rows}
            self._measured({"kind": "step", **line, **self.pace.line()})

    def _measured(self, line: Line) -> None:
        for tracker in self.trackers:
            tracker.add(line)
        self.console.measured(self.name, line)

    def save(self, beside: Background) -> None:
        """Begin to write a checkpoint, and with it the metrics up to it; all ranks have to call it.

        It is written beside what follows, where there is memory for a copy.
        """
        snapshot = self.checkpoints.take(self.learner, self.normaliser, self.progress, self._metadata())
        self.unsaved = False
        if snapshot is not None:
            metrics = [tracker.take(snapshot.step) for tracker in self.trackers]
            beside.start(partial(self._write, metrics, snapshot, self.progress.best))
            if snapshot.data is None:
                beside.wait()

    def _write(self, metrics: Iterable[Callable[[], None]], snapshot: Snapshot, best: dict[str, Any] | None) -> None:
        for write in metrics:
            write()
        self.checkpoints.write(snapshot)
        self.checkpoints.settle(best)

    def _metadata(self) -> dict[str, Any]:
        state = {"epochs": self.progress.epoch, "rows": self.learner.rows, "step": self.learner.steps}
        return {**self.about, **state, "l1_coeff": self.learner.l1_coeff, "metrics": self.progress.latest}

    def end_epoch(self, evaluation: Evaluation, beside: Background, *, named: bool) -> None:
        """Take in the validation of an epoch, begin to write its checkpoint, and say how it went.

        Args:
            evaluation: sums over the validation rows of all ranks.
            beside: what writes the checkpoint.
            named: whether the lines have to say which SAE they are about.

        """
        progress, sums = self.progress, evaluation.sums
        progress.epoch += 1
        metrics = {
            "step": self.learner.steps,
            "epoch": progress.epoch,
            "train_loss": progress.loss_sum / max(1, progress.rows),
            "train_l0": progress.active_sum / max(1, progress.rows),
            "val_loss": self.learner.validation_loss(evaluation),
            "l0": sums.l0(),
            "fvu": sums.fvu(),
            "mse": sums.mse(),
            "mse_raw": sums.mse() / self.normaliser.scale**2,
            "dead_share": self.learner.dead_share(),
            f"fvu_pca{PCA_RANK}": progress.pca_fvu,
            "validation_rows": int(sums.rows),
        }
        best = self._is_best(metrics)
        if best:
            progress.best = metrics
        progress.latest = metrics
        progress.position, progress.rows, progress.loss_sum, progress.active_sum = 0, 0, 0.0, 0.0
        self._measured({"kind": "epoch", "l1_coeff": self.learner.l1_coeff, **metrics})
        self.save(beside)
        self._say_epoch(metrics, best=best, named=named)

    def _is_best(self, metrics: dict[str, Any]) -> bool:
        """Whether this epoch is the best so far: by validation loss, after L0 where one is wanted."""
        target = self.learner.settings.target_l0

        def rank(these: dict[str, Any]) -> tuple[float, float]:
            if target is None:
                return 0.0, these["val_loss"]
            off = abs(these["l0"] / target - 1)
            return (0.0, these["fvu"]) if off <= _L0_TOLERANCE else (off, these["fvu"])

        return self.progress.best is None or rank(metrics) < rank(self.progress.best)

    def _say_epoch(self, metrics: dict[str, Any], *, best: bool, named: bool) -> None:
        say = self.console.line
        say(f"Epoch {metrics['epoch']}, {self.name}:" if named else f"Epoch {metrics['epoch']}:")
        say(f"  Train - Loss: {metrics['train_loss']:.6f}, L0: {metrics['train_l0']:.1f}")
        say(f"  Val   - Loss: {metrics['val_loss']:.6f}, L0: {metrics['l0']:.1f}")
        say(
            f"  FVU: {metrics['fvu']:.4f} (PCA of rank {PCA_RANK}: {metrics[f'fvu_pca{PCA_RANK}']:.4f}), "
            f"dead features: {metrics['dead_share']:.2%}"
        )
        if best:
            say(f"  ✓ New best model! (val_loss={metrics['val_loss']:.6f})")
