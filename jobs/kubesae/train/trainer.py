"""The loop: epochs of batches, validation, checkpoints, lines. What a step does is in `learner`, files in `checkpoint`.

D = d_model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from kubesae.errors import Interrupted
from kubesae.sae import Covariance, Sums
from kubesae.sae.metrics import PCA_RANK
from kubesae.train.learner import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from kubesae.sae import Normaliser
    from kubesae.shards import BlockRef
    from kubesae.train.checkpoint import Checkpoints, Progress
    from kubesae.train.console import Console
    from kubesae.train.distributed import Ranks
    from kubesae.train.learner import Learner, StepResult
    from kubesae.train.metrics import Line, MetricsLog
    from kubesae.train.reader import BlockSource, Reader
    from kubesae.train.stopping import Stop

# Lines of kind "step" in the metrics of a whole run: enough for a curve, few enough for a browser.
_POINTS = 1000
# L0 may be off the wanted one by this share and still count as found.
_L0_TOLERANCE = 0.1
_VALIDATION_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """When checkpoints are written: every `interval` seconds, and on SIGTERM if the last took less than `grace`."""

    interval: float = 300.0
    grace: float = 10.0


@dataclass
class Trainer:
    """Everything that a training needs, put together by `run`."""

    ranks: Ranks
    learner: Learner
    normaliser: Normaliser
    reader: Reader
    source: BlockSource
    validation: Sequence[BlockRef]
    epoch_batches: Sequence[int]
    progress: Progress
    checkpoints: Checkpoints
    log: MetricsLog
    console: Console
    stop: Stop
    about: dict[str, Any]
    limits: Limits = field(default_factory=Limits)
    _saved_at: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Train all epochs that are left.

        Raises:
            Interrupted: a signal came; a checkpoint was written if there was time.
            ConfigError: training diverged.

        """
        while self.progress.epoch < len(self.epoch_batches):
            if self.progress.position == 0:
                self.learner.begin_epoch()
            self._train_epoch()
            if self.learner.config.has_threshold:
                self.learner.find_threshold(self._validation_rows("threshold"))
            evaluation = self._validate()
            self._end_epoch(evaluation)

    def _train_epoch(self) -> None:
        progress, total = self.progress, self.epoch_batches[self.progress.epoch]
        every = max(1, sum(self.epoch_batches) // _POINTS)
        pace = _Pace(self.reader)
        with self.console.progress(f"Epoch {progress.epoch + 1} train", total, progress.position) as show:
            for batch in self.reader.batches(progress.epoch, progress.position):
                x_BD = self.normaliser.apply(batch.x_BD.to(self.ranks.device))
                result = self.learner.step(x_BD, batch.total_rows)
                progress.position = batch.position
                progress.loss_sum += result.loss * batch.total_rows
                progress.active_sum += result.l0 * batch.total_rows
                progress.rows += batch.total_rows
                pace.add(result, batch.total_rows)
                if len(pace.results) >= every or batch.position == total:
                    line = {"step": self.learner.steps, "epoch": progress.epoch + 1, "rows": self.learner.rows}
                    self._measured({"kind": "step", **line, **pace.line()})
                show(batch.position, f"loss {result.loss:.4f}, L0 {result.l0:.1f}, {pace.speed:,.0f} tokens/s")
                self._between_steps()

    def _measured(self, line: Line) -> None:
        self.log.add(line)
        self.console.measured(self.about["name"], line)

    def _between_steps(self) -> None:
        """Stop on a signal, and write the periodic checkpoint: all ranks at the same step."""
        due = self.ranks.first and time.monotonic() - self._saved_at >= self.limits.interval
        stop, due = self.ranks.max(torch.tensor([self.stop.signal is not None, due], dtype=torch.uint8)).tolist()
        if stop:
            self._interrupt()
        if due:
            self._save()

    def _interrupt(self) -> None:
        saved = self.checkpoints.seconds <= self.limits.grace
        if saved:
            self._save()
        steps = self.checkpoints.steps() if self.ranks.first else []
        where = f"from the checkpoint of step {steps[-1]}" if steps else "from the beginning"
        raise Interrupted(f"Stopped by {self.stop.signal or 'a signal to another rank'}: start again to go on {where}.")

    def _save(self) -> None:
        if self.ranks.first:
            self.log.flush(self.learner.steps)
            self.checkpoints.save(self.learner, self.normaliser, self.progress, self._metadata())
            if self.progress.best:
                self.checkpoints.point_at(self.progress.best)
            self.checkpoints.prune(self.progress.best)
        self._saved_at = time.monotonic()

    def _metadata(self) -> dict[str, Any]:
        state = {"epochs": self.progress.epoch, "rows": self.learner.rows, "step": self.learner.steps}
        return {**self.about, **state, "l1_coeff": self.learner.l1_coeff, "metrics": self.progress.latest}

    def _validation_rows(self, what: str) -> Iterator[Tensor]:
        """Iterate over this rank's normalised validation rows. Raises Interrupted at the end if a signal came."""
        mine = self.validation[self.ranks.rank :: self.ranks.world]
        with self.console.progress(f"Epoch {self.progress.epoch + 1} {what}", len(mine)) as show:
            for done, raw_BD in enumerate(self.source.blocks(mine), start=1):
                for rows_BD in raw_BD.split(_VALIDATION_ROWS):
                    yield self.normaliser.apply(rows_BD.to(self.ranks.device))
                show(done, "")
                if self.stop.signal is not None:
                    break
        self._between_steps()  # after a signal the rows were not all

    def _validate(self) -> Evaluation:
        """Return sums over the validation rows of all ranks; fills in the FVU of PCA where it is not known yet."""
        d_model, device = self.learner.config.d_model, self.ranks.device
        total = Evaluation(
            Sums.zero(d_model, self.learner.config.d_sae, device), torch.zeros((), dtype=torch.float64, device=device)
        )
        covariance = Covariance.zero(d_model, device) if self.progress.pca_fvu is None else None
        for x_BD in self._validation_rows("validation"):
            total += self.learner.evaluate(x_BD)
            if covariance is not None:
                covariance.add(x_BD)
        if covariance is not None:
            merged = Covariance(*(self.ranks.sum(tensor) for tensor in covariance.tensors()))
            self.progress.pca_fvu = merged.pca_fvu()
        sums = Sums(*(self.ranks.sum(tensor) for tensor in total.sums.tensors()))
        return Evaluation(sums, self.ranks.sum(total.penalty))

    def _end_epoch(self, evaluation: Evaluation) -> None:
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
        self._save()
        self._say_epoch(metrics, best=best)

    def _is_best(self, metrics: dict[str, Any]) -> bool:
        """Whether this epoch is the best so far: by validation loss, after L0 where one is wanted."""
        target = self.learner.settings.target_l0

        def rank(these: dict[str, Any]) -> tuple[float, float]:
            if target is None:
                return 0.0, these["val_loss"]
            off = abs(these["l0"] / target - 1)
            return (0.0, these["fvu"]) if off <= _L0_TOLERANCE else (off, these["fvu"])

        return self.progress.best is None or rank(metrics) < rank(self.progress.best)

    def _say_epoch(self, metrics: dict[str, Any], *, best: bool) -> None:
        say = self.console.line
        say(f"Epoch {metrics['epoch']}:")
        say(f"  Train - Loss: {metrics['train_loss']:.6f}, L0: {metrics['train_l0']:.1f}")
        say(f"  Val   - Loss: {metrics['val_loss']:.6f}, L0: {metrics['l0']:.1f}")
        say(
            f"  FVU: {metrics['fvu']:.4f} (PCA of rank {PCA_RANK}: {metrics[f'fvu_pca{PCA_RANK}']:.4f}), "
            f"dead features: {metrics['dead_share']:.2%}"
        )
        if best:
            say(f"  ✓ New best model! (val_loss={metrics['val_loss']:.6f})")


class _Pace:
    """Averages results between two lines of metrics, and how fast they came."""

    def __init__(self, reader: Reader) -> None:
        self.results: list[StepResult] = []
        self.speed = 0.0
        self._reader = reader
        self._begin()

    def _begin(self) -> None:
        self._began, self._waited, self._rows = time.monotonic(), self._reader.waited, 0

    def add(self, result: StepResult, rows: int) -> None:
        """Take in a step."""
        self.results.append(result)
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
        self._begin()
        return line
