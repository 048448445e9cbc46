"""One SAE in training: its weights, optimiser, schedules and counters. It knows nothing of files, data or the screen.

B = rows of this rank's share of a batch, D = d_model, F = features.

Several learners can take the same batch one after the other: all that a step needs besides the batch is in here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kubesae.errors import ConfigError
from kubesae.precision import matmul_dtype
from kubesae.sae import Sums, relu, threshold, topk
from kubesae.sae.jumprelu import first_threshold
from kubesae.sae.kernels import Code, decode
from kubesae.sae.resample import draw_rows, forget, replace_features
from kubesae.sae.step import Batch
from kubesae.train.adam import BETAS, BETAS_OF_K, Adam
from kubesae.train.objective import Now, forward_backward, validation_loss
from kubesae.train.schedule import annealed, default_rate, highest_l0, learning_rate, sparsity, steer
from kubesae.train.settings import coefficient_of, unit_decoder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from kubesae.experiment import Sae as Settings
    from kubesae.sae import SaeConfig, Weights
    from kubesae.sae.step import Step
    from kubesae.train.distributed import Ranks

# Inputs are normalised, so a gradient's norm is 0.01 to 0.1 whatever the model: this cuts what a batch of outliers or a
# bad start makes, and nothing else.
_LARGEST_GRADIENT = 1.0
# Weight of a batch's cutoff in the running mean that is the threshold until validation rows give a better one.
_CUTOFF_RATE = 0.01


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did, over all ranks.

    `mse` is in normalised units: nearly the FVU of the batch. `l1_coeff` is the sparsity coefficient, of jumprelu too.
    """

    loss: float
    mse: float
    l0: float
    lr: float
    l1_coeff: float
    gradient_norm: float
    dead: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Sums over validation rows; `penalty` is the sum of f_i |W_dec_i|, float64. They merge by `+`.

    Of a rank they are over its rows and, as for `penalty` and `active_F`, its features.
    """

    sums: Sums
    penalty: Tensor

    def __add__(self, other: Evaluation) -> Evaluation:
        """Return the sums over the rows of both."""
        return Evaluation(self.sums + other.sums, self.penalty + other.penalty)


class Learner:
    """Trains one SAE. Every rank has the same one, or its shard of the features of one."""

    def __init__(
        self, config: SaeConfig, settings: Settings, weights: Weights, ranks: Ranks, total_steps: int, dead_after: int
    ) -> None:
        """Train `weights`, those of this rank's features, in place.

        A feature without activation for `dead_after` rows is dead.
        """
        self.config = config
        self.settings = settings
        self.weights = weights
        self.steps = 0
        self.rows = 0
        self.l1_coeff = coefficient_of(settings)[1]
        self.threshold = 0.0 if config.solves_threshold else None
        self._ranks = ranks
        self._shard = ranks.shard
        self._total_steps = total_steps
        self._dead_after = dead_after
        self._dtype = matmul_dtype(ranks.device)
        self._lr = settings.lr or default_rate(config.architecture, total_steps)
        self._threshold_rate = settings.threshold_reach / (self._lr * max(1, total_steps))
        self._resample_at = {max(1, round(share * total_steps)) for share in settings.resample}
        features = len(weights.b_enc_F)
        self._last_fired_F = torch.zeros(features, dtype=torch.int64, device=ranks.device)
        self._fired_F = torch.zeros(features, dtype=torch.bool, device=ranks.device)
        self._adam = Adam(
            weights,
            unit_decoder=unit_decoder(settings),
            betas=BETAS if config.k is None else BETAS_OF_K,
            sum_shards=ranks.sum_shards,
        )

    def step(self, x_BD: Tensor, total_rows: int) -> StepResult:
        """Train on this rank's normalised rows of a batch that has `total_rows` over all ranks.

        Raises:
            ConfigError: the loss or the gradient is no longer finite.

        """
        settings, total_rows = self.settings, max(1, total_rows)
        l1_coeff = self.l1_coeff * sparsity(self.steps, self._total_steps, settings.sparsity_warmup)
        cosine = settings.lr_decay_shape == "cosine"
        lr = learning_rate(
            self.steps, self._total_steps, self._lr, settings.lr_warmup, settings.lr_decay, cosine=cosine
        )
        dead_A = torch.nonzero(self.rows - self._last_fired_F >= self._dead_after).squeeze(1)
        dead = self._count_all(dead_A)
        step = self._forward_backward(x_BD, total_rows, Now(l1_coeff, self._k(), dead_A, dead))
        scalars = torch.stack([step.loss, step.squared_error, step.active]).double()
        loss, squared_error, active = self._ranks.sum(scalars).tolist()
        norm = self._update(step, lr)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ConfigError(
                f"Training diverged: at step {self.steps} the loss is {loss} and the gradient's norm {norm}. "
                f"Lower the learning rate (it is {self._lr:g}) or raise lr_warmup, under another --sae-name."
            )
        self._count(step, total_rows)
        if self.steps in self._resample_at:
            self._resample(x_BD)
        if settings.target_l0 is not None and self.steps > settings.sparsity_warmup * self._total_steps:
            target, total = settings.target_l0, self._total_steps
            highest = highest_l0(self.steps, total, target, self.config.d_sae)
            self.l1_coeff = steer(self.l1_coeff, active / total_rows, target, total, highest)
        mse = squared_error / (total_rows * self.config.d_model)
        return StepResult(loss, mse, active / total_rows, lr, l1_coeff, norm, dead)

    def _count_all(self, features_A: Tensor) -> int:
        """Return how many such features there are on all shards."""
        return int(self._shard.sum(torch.tensor(len(features_A))))

    def _forward_backward(self, x_BD: Tensor, total_rows: int, now: Now) -> Step:
        settings, batch = self.settings, Batch(total_rows, self._dtype, self._ranks.sum, self._shard)
        step, cutoff = forward_backward(x_BD, self.weights, self.config, settings, now, batch)
        if self.threshold is not None and cutoff is not None:
            since = self.steps if settings.k_start is None else self.steps - settings.k_anneal * self._total_steps
            # the mean of all at first, so that nothing pulls it to 0; while k falls, the latest
            rate = max(_CUTOFF_RATE, 1 / (max(0, since) + 1))
            self.threshold += rate * (cutoff - self.threshold)
        return step

    def _k(self) -> int | None:
        """Return k of this step."""
        k, settings = self.config.k, self.settings
        if k is None or settings.k_start is None:
            return k
        return annealed(self.steps, self._total_steps, settings.k_start, k, settings.k_anneal)

    def _update(self, step: Step, lr: float) -> float:
        """Take the optimiser's step; return the norm of the gradient before clipping."""
        # those by b_dec have shares on all ranks; the others only on those that have the same features
        gradients = step.gradients.each(self._ranks.data.sum, b_dec=self._ranks.sum)
        t_F = self.weights.log_threshold_F
        before_F = None if t_F is None else t_F.clone()
        norm = self._adam.step(gradients, lr, _LARGEST_GRADIENT)
        if t_F is not None and before_F is not None:  # Adam's step does not depend on a gradient's scale, so after it
            t_F.copy_(before_F + self._threshold_rate * (t_F - before_F))
        return norm

    def _count(self, step: Step, total_rows: int) -> None:
        self.steps += 1
        self.rows += total_rows
        fired_F = self._ranks.data.max(step.fired_F.byte()).bool()
        self._last_fired_F[fired_F] = self.rows
        self._fired_F |= fired_F

    def _resample(self, x_BD: Tensor) -> None:
        """Let dead features begin anew from rows of this batch; those for which there is no row stay dead."""
        data, shard, weights = self._ranks.data, self._shard, self.weights
        dead_F = self.rows - self._last_fired_F >= self._dead_after
        dead_A = torch.nonzero(dead_F).squeeze(1)
        wanted = self._count_all(dead_A)
        if not wanted:
            return
        x_centred_BD = x_BD - weights.b_dec_D
        e_BD = x_centred_BD - shard.sum(decode(self._encode(x_centred_BD), weights.W_dec_FD))
        drawn_RD = draw_rows(x_BD, e_BD.square().sum(1), wanted, data.rank, data.world, data.sum)
        # rows go to the dead features of all shards in order
        before = sum(int(dead) for dead in shard.gather(torch.tensor(len(dead_A)))[: shard.index])
        drawn_RD = drawn_RD[before : before + len(dead_A)]
        features_R = dead_A[: len(drawn_RD)]
        start = first_threshold(self.settings.jumprelu_recipe, self.config.d_model)
        replace_features(weights, features_R, dead_F, drawn_RD - weights.b_dec_D, start, shard)
        for moments in (self._adam.moments, self._adam.square_moments):
            forget(moments, features_R)
        self._last_fired_F[features_R] = self.rows

    def begin_epoch(self) -> None:
        """Begin to count anew which features are active in an epoch."""
        self._fired_F.zero_()

    def dead_share(self) -> float:
        """Return the share of features that no row of the epoch so far activated."""
        return float(self._shard.sum((~self._fired_F).double().sum())) / self.config.d_sae

    def evaluate(self, x_BD: Tensor) -> Evaluation:
        """Return sums over normalised rows, multiplied in float32 as the exported SAE does."""
        weights = self.weights
        code = self._encode(x_BD - weights.b_dec_D)
        x_hat_BD = self._shard.sum(decode(code, weights.W_dec_FD)) + weights.b_dec_D
        active_F = torch.bincount(code.features_N, minlength=len(weights.b_enc_F))
        norm_F = torch.linalg.vector_norm(weights.W_dec_FD, dim=1)
        penalty = (code.values_N * norm_F[code.features_N]).sum(dtype=torch.float64)
        return Evaluation(Sums.of(x_BD, x_hat_BD, active_F), penalty)

    def no_evaluation(self) -> Evaluation:
        """Return sums over no rows."""
        device = self._ranks.device
        sums = Sums.zero(self.config.d_model, len(self.weights.b_enc_F), device)
        return Evaluation(sums, torch.zeros((), dtype=torch.float64, device=device))

    def over_ranks(self, evaluation: Evaluation) -> Evaluation:
        """Return the sums over the rows and features of all ranks."""
        sums = Sums(*(self._ranks.data.sum(tensor) for tensor in evaluation.sums.tensors()))
        sums = replace(sums, active_F=torch.cat(list(self._shard.gather(sums.active_F))))
        return Evaluation(sums, self._ranks.sum(evaluation.penalty))

    def find_threshold(self, batches: Iterable[Tensor]) -> None:
        """Set the threshold to the one that gives normalised rows, of all ranks together, an L0 of k.

        Trained thresholds stay as they are, and no rows are read.
        """
        if not self.config.solves_threshold:
            return
        search = self.begin_threshold()
        for x_BD in batches:
            self.search_threshold(search, x_BD)
        self.settle_threshold(search)

    def begin_threshold(self) -> threshold.ThresholdSearch:
        """Begin what `find_threshold` does, for who has the batches one by one."""
        return threshold.ThresholdSearch(self._ranks.device)

    def search_threshold(self, search: threshold.ThresholdSearch, x_BD: Tensor) -> None:
        """Take in normalised rows."""
        search.add(x_BD - self.weights.b_dec_D, self.weights)

    def settle_threshold(self, search: threshold.ThresholdSearch) -> None:
        """Set the threshold; every rank has taken in its rows."""
        self.threshold = search.solve(self.config.k or 0, self._ranks.sum, self._shard)

    def _encode(self, x_centred_BD: Tensor) -> Code:
        used, threshold_F = threshold.in_use(self.weights, self.threshold)
        if threshold_F is not None:
            return threshold.encode(x_centred_BD, used, threshold_F, torch.float32)
        if self.config.k is None:
            return relu.to_code(relu.encode(x_centred_BD, used, torch.float32), x_centred_BD.dtype)
        return topk.encode(x_centred_BD, used, self.config.k, torch.float32, self._shard).positive()

    def validation_loss(self, evaluation: Evaluation) -> float:
        """Return the loss of validation rows at the full sparsity coefficient."""
        return validation_loss(evaluation.sums, evaluation.penalty, self.config, self.l1_coeff)

    def tensors(self) -> dict[str, Tensor]:
        """Return this rank's part of what a checkpoint stores of this learner, besides `numbers`."""
        state = {"last_fired": self._last_fired_F, "fired": self._fired_F}
        moments = self._adam.moments, self._adam.square_moments
        for prefix, group in zip(("", "exp_avg.", "exp_avg_sq."), (self.weights, *moments), strict=True):
            state |= {prefix + name: tensor for name, tensor in group.named().items()}
        return state

    def whole_tensors(self) -> dict[str, Tensor] | None:
        """Return what a checkpoint stores of this learner, besides `numbers`; None on others than the first rank.

        All ranks have to call it.
        """
        whole: dict[str, Tensor] = {}
        place = self._ranks.device if self._shard.count == 1 else "cpu"
        if not self._ranks.data.first:  # the first line of ranks has everything
            return None
        for name, tensor in self.tensors().items():
            joined = tensor.to(place) if _has_no_features(name) else self._ranks.features.join(tensor)
            if joined is not None:
                whole[name] = joined
        return whole if self._ranks.first else None

    def numbers(self) -> dict[str, float]:
        """Return the numbers that a checkpoint stores of this learner."""
        numbers = {"steps": self.steps, "rows": self.rows, "l1_coeff": self.l1_coeff}
        return numbers if self.threshold is None else numbers | {"threshold": self.threshold}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Go on from what `whole_tensors()` and `numbers()` gave, on any number of ranks and shards."""
        self.steps, self.rows = int(numbers["steps"]), int(numbers["rows"])
        self.l1_coeff = float(numbers["l1_coeff"])
        if self.threshold is not None:
            self.threshold = float(numbers["threshold"])
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name] if _has_no_features(name) else self._shard.own(tensors[name]))
        self._adam.start_at(self.steps)


def _has_no_features(name: str) -> bool:
    """Whether a tensor of a checkpoint is the same on all shards, having no line for each feature."""
    return name.rpartition(".")[2] == "b_dec"
