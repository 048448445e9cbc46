"""A pass over the data that several SAEs learn from: epochs of batches, validation, checkpoints.

What a step does is in `learner`, what an SAE keeps for itself in `trainee`. Here is what they share: each block is read
once, each batch is copied to the device once, and normalised once for all whose normaliser is equal.

Each SAE takes every batch once, whatever the others do. After an interruption between two checkpoints they stand at
different places: the pass then begins where the least advanced one is, and the others skip what they have had. One
whose loss is no longer finite leaves the pass, which goes on without it.
"""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from kubesae.errors import ConfigError, Interrupted
from kubesae.parallel import Background
from kubesae.sae import Covariance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from kubesae.sae import Normaliser
    from kubesae.shards import BlockRef
    from kubesae.train.console import Console
    from kubesae.train.distributed import Ranks
    from kubesae.train.learner import Evaluation
    from kubesae.train.reader import BlockSource, Reader
    from kubesae.train.stopping import Stop
    from kubesae.train.trainee import Trainee

# Lines of kind "step" in the metrics of a whole run: enough for a curve, few enough for a browser.
_POINTS = 1000
_VALIDATION_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """When checkpoints are written: every `interval` seconds, and on SIGTERM if the last took less than `grace`.

    One that takes longer than the interval puts the next off: training does not wait for it.
    """

    interval: float = 300.0
    grace: float = 10.0


class Rows:
    """Rows of a batch on the device, normalised once for all whose normaliser is the same object."""

    def __init__(self, raw_BD: Tensor, device: torch.device) -> None:
        """Copy them to the device."""
        self._raw_BD = raw_BD.to(device)
        self._normalised: dict[int, Tensor] = {}

    def of(self, normaliser: Normaliser) -> Tensor:
        """Return them as `normaliser` gives them, float32 [rows, d_model]; nobody may write to them."""
        if id(normaliser) not in self._normalised:
            self._normalised[id(normaliser)] = normaliser.apply(self._raw_BD)
        return self._normalised[id(normaliser)]


@dataclass
class Pass:
    """Everything that a pass needs, put together by `assemble`; `named`: lines have to say which SAE they are about."""

    ranks: Ranks
    reader: Reader
    source: BlockSource
    validation: Sequence[BlockRef]
    epoch_batches: Sequence[int]
    trainees: Sequence[Trainee]
    console: Console
    stop: Stop
    named: bool = False
    limits: Limits = field(default_factory=Limits)
    _saved_at: float = field(default_factory=time.monotonic)
    _beside: Background = field(default_factory=Background)

    def run(self) -> None:
        """Train all epochs that are left, of all SAEs; those that diverge say so in `Trainee.diverged`.

        Raises:
            Interrupted: a signal came; checkpoints were written if there was time.

        """
        try:
            self._run()
        except Interrupted:
            raise
        except Exception:
            with suppress(Exception):
                self._beside.wait()  # what has begun is not lost by what went wrong after it
            raise
        self._beside.wait()

    def _run(self) -> None:
        while going := self._going():
            epoch = min(trainee.progress.epoch for trainee in going)
            here = [trainee for trainee in going if trainee.progress.epoch == epoch]
            if not self._train(epoch, here):
                continue  # one diverged: the others may stand further on, where reading begins anew
            self._find_thresholds(epoch, here)
            for trainee, evaluation in zip(here, self._validate(epoch, here), strict=True):
                trainee.end_epoch(evaluation, self._beside, named=self.named)
            self._saved_at = time.monotonic()

    def _going(self) -> list[Trainee]:
        """Return those that have something left to learn."""
        epochs = len(self.epoch_batches)
        return [trainee for trainee in self.trainees if not trainee.diverged and trainee.progress.epoch < epochs]

    def _train(self, epoch: int, here: Sequence[Trainee]) -> bool:
        """Train what is left of an epoch; False when one diverged, after the batch at which it did."""
        begin, total = min(trainee.progress.position for trainee in here), self.epoch_batches[epoch]
        every = max(1, sum(self.epoch_batches) // _POINTS)
        for trainee in here:
            trainee.begin_epoch()
        label = f"Epoch {epoch + 1} train"
        with (
            self.console.progress(label, total, begin) as show,
            closing(self.reader.batches(epoch, begin)) as batches,
        ):
            for batch in batches:
                rows = Rows(batch.x_BD, self.ranks.device)
                for trainee in here:
                    if trainee.has_had(batch):
                        trainee.pace.begin()
                        continue
                    try:
                        trainee.step(rows.of(trainee.normaliser), batch)
                    except ConfigError as error:
                        trainee.diverged = str(error)
                        continue
                    trainee.log_steps(every if batch.position < total else 1)
                show(batch.position, _progress_text(here))
                self._between_steps()
                if any(trainee.diverged for trainee in here):
                    self._say_diverged(here)
                    return False
        return True

    def _say_diverged(self, here: Sequence[Trainee]) -> None:
        """Say which SAEs leave the pass; of a training of one SAE, its end says so."""
        for trainee in here:
            if trainee.diverged and self.named:
                self.console.line(f"{trainee.name}: {trainee.diverged} It learns no more; the others go on.")

    def _between_steps(self) -> None:
        """Stop on a signal, and write the periodic checkpoints: all ranks at the same step."""
        due = self.ranks.first and time.monotonic() - self._saved_at >= self.limits.interval and not self._beside.busy
        stop, due = self.ranks.max(torch.tensor([self.stop.signal is not None, due], dtype=torch.uint8)).tolist()
        if stop:
            self._interrupt()
        if due:
            self._save()

    def _save(self) -> None:
        for trainee in self._going():
            if trainee.unsaved:
                trainee.save(self._beside)
        self._saved_at = time.monotonic()

    def _interrupt(self) -> None:
        """End on a signal, after checkpoints of all if those before took so little time that these fit too.

        What is being written already is waited for, as long as whoever sent the signal waits (`noticing_signals`).
        """
        unsaved = [trainee for trainee in self._going() if trainee.unsaved]
        too_long = sum(trainee.checkpoints.seconds for trainee in unsaved) > self.limits.grace
        if not self.ranks.max(torch.tensor([too_long], dtype=torch.uint8)).item():
            self._save()
        self._beside.wait()
        with suppress(RuntimeError):  # the first rank may be gone meanwhile
            # the others wait for the first: where one ends, torchrun ends all
            self.ranks.max(torch.zeros(1, dtype=torch.uint8))
        where = _places(self._going()) if self.ranks.first else "where it was"
        raise Interrupted(f"Stopped by {self.stop.signal or 'a signal to another rank'}: start again to go on {where}.")

    def _validation_rows(self, epoch: int, what: str) -> Iterator[Rows]:
        """Iterate over this rank's validation rows. Raises Interrupted at the end if a signal came."""
        mine = self.validation[self.ranks.data.rank :: self.ranks.data.world]
        with self.console.progress(f"Epoch {epoch + 1} {what}", len(mine)) as show:
            for done, raw_BD in enumerate(self.source.blocks(mine), start=1):
                for rows_BD in raw_BD.split(_VALIDATION_ROWS):
                    yield Rows(rows_BD, self.ranks.device)
                show(done, "")
                # ranks that share out the features encode these rows together
                stop = torch.tensor(self.stop.signal is not None, dtype=torch.uint8)
                if self.ranks.features.max(stop).item():
                    break
        self._between_steps()  # after a signal the rows were not all

    def _find_thresholds(self, epoch: int, here: Sequence[Trainee]) -> None:
        """Set the thresholds of SAEs that have one, which validation looks at."""
        searches = [(one, one.learner.begin_threshold()) for one in here if one.learner.config.solves_threshold]
        if not searches:
            return
        for rows in self._validation_rows(epoch, "threshold"):
            for trainee, search in searches:
                trainee.learner.search_threshold(search, rows.of(trainee.normaliser))
        for trainee, search in searches:
            trainee.learner.settle_threshold(search)
            trainee.unsaved = True

    def _validate(self, epoch: int, here: Sequence[Trainee]) -> list[Evaluation]:
        """Return each SAE's sums over the validation rows of all ranks; fills in the FVU of PCA where it is unknown."""
        totals = [trainee.learner.no_evaluation() for trainee in here]
        asked = {id(one.normaliser): one.normaliser for one in here if one.progress.pca_fvu is None}
        d_model = here[0].learner.config.d_model
        covariances = {number: Covariance.zero(d_model, self.ranks.device) for number in asked}
        for rows in self._validation_rows(epoch, "validation"):
            for i, trainee in enumerate(here):
                totals[i] += trainee.learner.evaluate(rows.of(trainee.normaliser))
            for number, covariance in covariances.items():
                covariance.add(rows.of(asked[number]))
        fvu = {number: self._pca_fvu(covariance) for number, covariance in covariances.items()}
        for trainee in here:
            if trainee.progress.pca_fvu is None:
                trainee.progress.pca_fvu = fvu[id(trainee.normaliser)]
        return [one.learner.over_ranks(total) for one, total in zip(here, totals, strict=True)]

    def _pca_fvu(self, covariance: Covariance) -> float:
        return Covariance(*(self.ranks.data.sum(tensor) for tensor in covariance.tensors())).pca_fvu()


def _progress_text(here: Sequence[Trainee]) -> str:
    """Return what the last steps say: of one SAE its numbers, of several the range of their losses."""
    paces = [trainee.pace for trainee in here if trainee.pace.last]
    if not paces:
        return ""  # all skip what they have had
    last, speed = [pace.last for pace in paces if pace.last], f"{paces[0].speed:,.0f} tokens/s"
    if len(here) == 1:
        return f"loss {last[0].loss:.4f}, L0 {last[0].l0:.1f}, {speed}"
    losses = [result.loss for result in last]
    return f"{len(paces)} SAEs, loss {min(losses):.4f} to {max(losses):.4f}, {speed}"


def _places(trainees: Sequence[Trainee]) -> str:
    """Return from which checkpoints a start goes on, in words."""
    steps = [max(trainee.checkpoints.steps(), default=0) for trainee in trainees]
    first, last = min(steps, default=0), max(steps, default=0)
    if last == 0:
        return "from the beginning"
    if first < last:
        return f"from the checkpoints of steps {first} to {last}"
    return f"from the checkpoint{'s' if len(steps) > 1 else ''} of step {last}"
