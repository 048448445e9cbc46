"""One learner's steps: constraints, counters over ranks, exact restoring, and the controller of L0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.errors import ConfigError
from kubesae.experiment import Sae as Settings
from kubesae.sae import SaeConfig, Weights, relu
from kubesae.sae.relu import penalty_weight
from kubesae.sae.step import Batch
from kubesae.train.learner import Learner
from kubesae.train.schedule import highest_l0
from kubesae.train.start import draw_weights
from thread_ranks import ALONE, run_ranks

if TYPE_CHECKING:
    from kubesae.train.distributed import Ranks

B, D, F, K = 24, 8, 32, 3
TOTAL = 40
OF_K = ("topk", "batchtopk", "matryoshka")
ALL = (*OF_K, "relu", "jumprelu", "gated")


def learner(architecture: str = "topk", ranks: Ranks = ALONE, **changes: object) -> Learner:
    k, prefixes = K if architecture in OF_K else None, (4, 16, F) if architecture == "matryoshka" else None
    config = SaeConfig(architecture=architecture, d_model=D, d_sae=F, k=k, prefixes=prefixes)
    settings = Settings(architecture=architecture, **{"lr": 1e-2, **changes})
    weights = draw_weights(config, settings, rows(99))
    made = Learner(config, settings, weights, ranks, TOTAL, dead_after=2 * B)
    made._dtype = torch.float32
    return made


def rows(seed: int) -> torch.Tensor:
    return torch.randn(B, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ALL)
def test_training_lowers_the_error(architecture: str) -> None:
    made = learner(architecture, l1_coeff=1e-5, l0_coeff=1e-5)
    results = [made.step(rows(i % 3), B) for i in range(TOTAL)]
    assert results[-1].mse < 0.7 * results[0].mse
    assert made.steps == TOTAL
    assert made.rows == TOTAL * B


def test_decoder_rows_keep_norm_one_through_steps() -> None:
    made = learner()
    for i in range(5):
        made.step(rows(i), B)
        torch.testing.assert_close(made.weights.W_dec_FD.norm(dim=1), torch.ones(F))


def test_free_decoder_rows_change_their_norm() -> None:
    made = learner("relu")
    before = made.weights.W_dec_FD.norm(dim=1)
    for i in range(5):
        made.step(rows(i), B)
    assert (made.weights.W_dec_FD.norm(dim=1) - before).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ALL)
def test_restored_learner_goes_on_bit_for_bit(architecture: str) -> None:
    straight = learner(architecture, target_l0=None if architecture in OF_K else 5.0)
    for i in range(10):
        straight.step(rows(i), B)
    tensors = {name: tensor.clone() for name, tensor in straight.tensors().items()}
    numbers = straight.numbers()
    again = learner(architecture, target_l0=straight.settings.target_l0)
    again.restore(tensors, numbers)
    for i in range(10, 20):
        assert again.step(rows(i), B) == straight.step(rows(i), B)
    for name, tensor in straight.tensors().items():
        assert torch.equal(again.tensors()[name], tensor), name
    assert again.numbers() == straight.numbers()


def test_the_threshold_is_the_mean_cutoff_until_it_is_solved() -> None:
    """A running mean that began at 0 would give ten times too many features after a few steps."""
    made = learner("batchtopk")
    cutoffs = []
    for i in range(5):
        before = made.threshold
        made.step(rows(i), B)
        cutoffs.append((made.threshold - before) * (i + 1) + before)
    assert made.threshold == pytest.approx(sum(cutoffs) / 5)
    assert min(cutoffs) > 0
    batches = [rows(i) for i in range(10, 40)]
    made.find_threshold(batches)
    assert made.evaluate(torch.cat(batches)).sums.l0() == pytest.approx(K, rel=0.01)


def test_only_what_compares_rows_has_a_threshold() -> None:
    for architecture in ("topk", "relu"):
        assert learner(architecture).threshold is None
        assert "threshold" not in learner(architecture).numbers()


def test_dead_features_are_counted_in_rows() -> None:
    made = learner()
    silent = [4, 9]
    made.weights.b_enc_F[silent] = -1e6
    dead = [made.step(rows(i), B).dead for i in range(4)]
    # dead_after is two batches: by the third step those that never fired are dead
    assert dead[:2] == [0, 0]
    assert dead[2] >= len(silent)


def test_dead_share_is_of_the_epoch() -> None:
    made = learner()
    made.weights.b_enc_F[:] = -1e6
    made.weights.b_enc_F[:8] = 1.0
    made.begin_epoch()
    made.step(rows(0), B)
    share = made.dead_share()
    assert share >= 1 - 8 / F
    made.begin_epoch()
    assert made.dead_share() == 1.0


@pytest.mark.parametrize("architecture", ALL)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_train_what_one_process_does(architecture: str, world: int) -> None:
    """Losses, L0, dead counters and weights; one rank's share is empty in one step."""

    def work(ranks: Ranks) -> tuple[list[float], list[int], dict[str, torch.Tensor]]:
        made = learner(architecture, ranks)
        results = []
        for i in range(6):
            x = rows(i)
            share = x[ranks.rank :: ranks.world] if i != 3 else (x if ranks.first else x[:0])
            results.append(made.step(share, B))
        return [r.loss for r in results], [r.dead for r in results], made.tensors()

    (expected,) = run_ranks(1, work)
    for losses, dead, tensors in run_ranks(world, work):
        assert losses == pytest.approx(expected[0], rel=1e-5)
        assert dead == expected[1]
        assert torch.equal(tensors["last_fired"], expected[2]["last_fired"])
        for name in learner(architecture).weights.named():
            torch.testing.assert_close(tensors[name], expected[2][name], rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_not_finite_says_what_to_do() -> None:
    x = rows(0)
    x[3, 2] = float("nan")
    with pytest.raises(ConfigError, match=r"Training diverged: at step 0 .*Lower the learning rate"):
        learner().step(x, B)


def test_large_gradients_are_clipped() -> None:
    made = learner("relu")
    result = made.step(rows(0) * 1e4, B)
    assert result.gradient_norm > 100
    norm = torch.stack([g.norm() for g in made._adam.moments]).norm() / 0.1
    torch.testing.assert_close(norm, torch.tensor(1.0))


@pytest.mark.parametrize("architecture", ALL)
def test_validation_is_the_formula(architecture: str) -> None:
    made = learner(architecture)
    x = rows(5)
    if made.config.solves_threshold:
        made.threshold = 0.7
    W_enc, b_enc, W_dec, b_dec, *more = made.weights
    if architecture == "gated":
        more[1][:] = torch.linspace(-0.5, 0.5, F)
    parts = made.evaluate(x[:10]) + made.evaluate(x[10:])
    f = ((x - b_dec) @ W_enc.T + b_enc).relu()
    if architecture == "topk":
        f = torch.zeros_like(f).scatter(1, f.topk(K).indices, f.topk(K).values)
    if made.config.solves_threshold:
        f = torch.where(f > 0.7, f, 0.0)
    if architecture == "jumprelu":
        f = torch.where(f > more[0].exp(), f, 0.0)
    if architecture == "gated":
        f = f * ((x - b_dec) @ W_enc.T + more[1] > 0)
    error = (x - f @ W_dec - b_dec).square()
    variance = (x - x.mean(0)).square().sum()
    assert parts.sums.fvu() == pytest.approx(float(error.sum() / variance), rel=1e-5)
    assert parts.sums.l0() == pytest.approx(float((f > 0).sum(1).float().mean()))
    penalty = 0.0
    if architecture == "jumprelu":
        penalty = made.l1_coeff * float((f > 0).sum(1).float().mean())
    if architecture in {"relu", "gated"}:
        penalty = penalty_weight(made.l1_coeff, D) * float((f * W_dec.norm(dim=1)).sum(1).mean())
    assert made.validation_loss(parts) == pytest.approx(float(error.mean()) + penalty, rel=1e-5)


def test_a_unit_decoder_of_relu_has_the_plain_penalty() -> None:
    """It starts and stays on the sphere, and its first step is that of the norm-weighted penalty, projected."""
    unit = learner("relu", decoder="unit")
    torch.testing.assert_close(unit.weights.W_dec_FD.norm(dim=1), torch.ones(F))
    before = unit.weights.each(torch.clone)
    batch = Batch(B, torch.float32)
    plain = relu.loss_and_gradients(rows(0), before, 1e-3, batch, unit_decoder=True)
    weighted = relu.loss_and_gradients(rows(0), before, 1e-3, batch)
    torch.testing.assert_close(plain.loss, weighted.loss)
    for step in (plain, weighted):
        along_F = (step.gradients.W_dec_FD * before.W_dec_FD).sum(1, keepdim=True)
        step.gradients.W_dec_FD.sub_(along_F * before.W_dec_FD)  # what the optimiser leaves out where rows keep norm 1
    for mine, other in zip(plain.gradients, weighted.gradients, strict=True):
        torch.testing.assert_close(mine, other)
    for i in range(5):
        unit.step(rows(i), B)
    torch.testing.assert_close(unit.weights.W_dec_FD.norm(dim=1), torch.ones(F))


def test_only_anthropics_jumprelu_has_a_free_decoder() -> None:
    for architecture, changes, norm in (
        ("jumprelu", {}, 0.1), ("jumprelu", {"jumprelu_recipe": "gdm"}, 1.0), ("gated", {}, 1.0),
    ):  # fmt: skip
        made = learner(architecture, **changes)
        torch.testing.assert_close(made.weights.W_dec_FD.norm(dim=1), torch.full((F,), norm))
        for i in range(5):
            made.step(rows(i), B)
        if norm == 1.0:
            torch.testing.assert_close(made.weights.W_dec_FD.norm(dim=1), torch.ones(F))
        else:
            assert (made.weights.W_dec_FD.norm(dim=1) - norm).abs().max() > 1e-3


def test_thresholds_have_a_learning_rate_of_their_own() -> None:
    """Adam moves a number by the rate at most: TOTAL steps at the peak would move a threshold as far as it may go."""
    moved = []
    for reach, lr in ((2.0, 1e-2), (6.0, 1e-2), (6.0, 1e-3)):
        made = learner("jumprelu", threshold_reach=reach, lr=lr, lr_warmup=0.0)
        before = made.weights.log_threshold_F.clone()
        made.step(rows(0), B)
        moved.append((made.weights.log_threshold_F - before).abs().max().item())
    assert moved == pytest.approx([2 / TOTAL, 6 / TOTAL, 6 / TOTAL], rel=0.02)


@pytest.mark.parametrize("architecture", OF_K)
def test_k_falls_from_its_start(architecture: str) -> None:
    made = learner(architecture, k_start=11, k_anneal=0.2)
    l0 = [made.step(rows(i), B).l0 for i in range(12)]
    assert l0[:9] == pytest.approx([11, 10, 9, 8, 7, 6, 5, 4, 3], abs=0.5)
    assert l0[9:] == pytest.approx([3, 3, 3], abs=0.5)


def test_the_running_threshold_begins_anew_once_k_has_fallen() -> None:
    made, steps = learner("batchtopk", k_start=16, k_anneal=0.2), 11
    fixed = learner("batchtopk")
    for i in range(steps):
        made.step(rows(i), B)
        fixed.step(rows(i), B)
    assert made.threshold == pytest.approx(fixed.threshold, rel=0.3)


def test_l1_coefficient_moves_only_towards_a_wanted_l0_after_its_ramp() -> None:
    fixed, steered = learner("relu"), learner("relu", target_l0=4.0)
    for i in range(8):
        fixed.step(rows(i), B)
        steered.step(rows(i), B)
        assert fixed.l1_coeff == 1e-3
        assert (steered.l1_coeff > 1e-3) == (i >= 4)


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "gated"])
def test_a_coefficient_rises_only_above_the_slope_to_the_target(architecture: str) -> None:
    steered = learner(architecture, target_l0=15.0, sparsity_warmup=0.0)
    for i in range(8):
        before = steered.l1_coeff
        l0 = steered.step(rows(i), B).l0
        highest = highest_l0(i + 1, TOTAL, 15.0, F)
        assert (steered.l1_coeff > before) == (l0 > highest), (l0, highest)
        assert (steered.l1_coeff < before) == (l0 < 15.0), (l0, highest)


@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "gated"])
def test_dead_features_are_resampled_at_their_steps(architecture: str) -> None:
    made = learner(architecture, resample=(0.1, 0.2), l1_coeff=1e-5, l0_coeff=1e-5)
    silent = [4, 9]
    made.weights.b_enc_F[silent] = -1e6
    for i in range(3):
        made.step(rows(i), B)
    assert (made.weights.b_enc_F[silent] < -1e5).all()
    made.step(rows(3), B)
    assert (made.weights.b_enc_F[silent] == 0).all()
    directions = torch.nn.functional.normalize(rows(3) - made.weights.b_dec_D, dim=1)
    cosines = torch.nn.functional.normalize(made.weights.W_dec_FD[silent], dim=1) @ directions.T
    torch.testing.assert_close(cosines.amax(1), torch.ones(2))
    made.begin_epoch()
    made.step(rows(3), B)
    assert made._fired_F[silent].all()


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_resample_what_one_process_does(world: int) -> None:
    def work(ranks: Ranks) -> dict[str, torch.Tensor]:
        made = learner("relu", ranks, resample=(0.1,))
        made.weights.b_enc_F[[4, 9]] = -1e6
        for i in range(6):
            made.step(rows(i)[ranks.rank :: ranks.world], B)
        return made.tensors()

    (expected,) = run_ranks(1, work)
    assert (expected["b_enc"] > -1e5).all()
    for tensors in run_ranks(world, work):
        assert torch.equal(tensors["last_fired"], expected["last_fired"])
        for name in Weights.names():
            torch.testing.assert_close(tensors[name], expected[name], rtol=1e-3, atol=1e-4)
