"""One learner's steps: constraints, counters over ranks, exact restoring, and the controller of L0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.errors import ConfigError
from kubesae.experiment import Sae as Settings
from kubesae.sae import SaeConfig, Weights, initial_weights
from kubesae.train.learner import Learner
from thread_ranks import ALONE, run_ranks

if TYPE_CHECKING:
    from kubesae.train.distributed import Ranks

B, D, F, K = 24, 8, 32, 3
TOTAL = 40


def learner(architecture: str = "topk", ranks: Ranks = ALONE, **changes: object) -> Learner:
    k, prefixes = None if architecture == "relu" else K, (4, 16, F) if architecture == "matryoshka" else None
    config = SaeConfig(architecture=architecture, d_model=D, d_sae=F, k=k, prefixes=prefixes)
    settings = Settings(architecture=architecture, **{"lr": 1e-2, **changes})
    weights = initial_weights(config, rows(99), seed=1)
    made = Learner(config, settings, weights, ranks, TOTAL, dead_after=2 * B)
    made._dtype = torch.float32
    return made


def rows(seed: int) -> torch.Tensor:
    return torch.randn(B, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "relu"])
def test_training_lowers_the_error(architecture: str) -> None:
    made = learner(architecture, l1_coeff=1e-5)
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


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "relu"])
def test_restored_learner_goes_on_bit_for_bit(architecture: str) -> None:
    straight = learner(architecture, target_l0=5.0 if architecture == "relu" else None)
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


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "relu"])
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
        for name in Weights.names():
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


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "relu"])
def test_validation_is_the_formula(architecture: str) -> None:
    made = learner(architecture)
    x = rows(5)
    if made.config.has_threshold:
        made.threshold = 0.7
    parts = made.evaluate(x[:10]) + made.evaluate(x[10:])
    W_enc, b_enc, W_dec, b_dec = made.weights
    f = ((x - b_dec) @ W_enc.T + b_enc).relu()
    if architecture == "topk":
        f = torch.zeros_like(f).scatter(1, f.topk(K).indices, f.topk(K).values)
    if made.config.has_threshold:
        f = torch.where(f > 0.7, f, 0.0)
    error = (x - f @ W_dec - b_dec).square()
    variance = (x - x.mean(0)).square().sum()
    assert parts.sums.fvu() == pytest.approx(float(error.sum() / variance), rel=1e-5)
    assert parts.sums.l0() == pytest.approx(float((f > 0).sum(1).float().mean()))
    penalty = 0.0
    if architecture == "relu":
        from kubesae.sae.relu import penalty_weight

        penalty = penalty_weight(made.l1_coeff, D) * float((f * W_dec.norm(dim=1)).sum(1).mean())
    assert made.validation_loss(parts) == pytest.approx(float(error.mean()) + penalty, rel=1e-5)


def test_l1_coefficient_moves_only_towards_a_wanted_l0_after_its_ramp() -> None:
    fixed, steered = learner("relu"), learner("relu", target_l0=4.0)
    for i in range(8):
        fixed.step(rows(i), B)
        steered.step(rows(i), B)
        assert fixed.l1_coeff == 1e-3
        assert (steered.l1_coeff > 1e-3) == (i >= 4)
