"""TopK and AuxK against autograd in float64, and each detail that a shipped library has had wrong.

The oracle is in tests/support/sae_oracle.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.sae import encoder, topk
from kubesae.sae.auxk import AuxK
from kubesae.sae.step import Batch
from kubesae.sae.weights import Weights
from sae_oracle import COEFFICIENT, assert_gradients, auxk_loss, leaves_of, rows_and_weights

if TYPE_CHECKING:
    from kubesae.sae.step import Step

B, D, F, K = 13, 8, 24, 3
K_AUX = 4
NO_AUXK = AuxK(0.0, torch.zeros(0, dtype=torch.int64), 0, K_AUX)


def make(seed: int = 0) -> tuple[torch.Tensor, Weights]:
    return rows_and_weights(B, D, F, seed)


def oracle(
    x: torch.Tensor, weights: Weights, dead: list[int], coefficient: float
) -> tuple[torch.Tensor, torch.Tensor, Weights]:
    """Main loss, auxiliary loss and the gradients of their sum, by autograd."""
    leaves = W_enc, b_enc, W_dec, b_dec = leaves_of(weights)
    z = (x - b_dec) @ W_enc.T + b_enc
    kept = torch.zeros_like(z, dtype=torch.bool).scatter(1, z.topk(K, dim=1).indices, value=True)
    x_hat = torch.where(kept, z.relu(), 0.0) @ W_dec + b_dec
    main, aux = (x - x_hat).square().mean(), auxk_loss(x, x_hat, z, W_dec, dead, coefficient)
    (main + aux).backward()
    return main, aux, Weights(*(leaf.grad for leaf in leaves))


def run(x: torch.Tensor, weights: Weights, dead: list[int], coefficient: float = COEFFICIENT) -> Step:
    auxk = AuxK(coefficient, torch.tensor(dead, dtype=torch.int64), len(dead), K_AUX)
    return topk.loss_and_gradients(x, weights, K, auxk, Batch(len(x), torch.float64))


@pytest.mark.parametrize(
    "dead", [[], [5], [0, 7, 11], [1, 2, 3, 4], [0, 3, 5, 8, 9, 13, 20, 21, 23]], ids=lambda d: f"{len(d)}-dead"
)
def test_loss_and_gradients_are_autograds(dead: list[int]) -> None:
    x, weights = make()
    step = run(x, weights, dead)
    main, aux, gradients = oracle(x, weights, dead, COEFFICIENT)
    torch.testing.assert_close(step.loss, (main + aux).detach())
    assert_gradients(step.gradients, list(gradients))


def test_slicing_the_encoder_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = make()
    whole = run(x, weights, [1, 2])
    monkeypatch.setattr(encoder, "_SLICE", 1)
    monkeypatch.setattr(encoder, "_SLICE_ROWS", 1)
    for mine, expected in zip(run(x, weights, [1, 2]).gradients, whole.gradients, strict=True):
        torch.testing.assert_close(mine, expected)


def test_step_counts_active_entries_and_fired_features() -> None:
    x, weights = make()
    weights.b_enc_F[:] = -2.0  # so that some of the k largest are negative
    z = (x - weights.b_dec_D) @ weights.W_enc_FD.T + weights.b_enc_F
    f = torch.zeros_like(z).scatter(1, z.topk(K, dim=1).indices, z.topk(K, dim=1).values.relu())
    step = run(x, weights, [])
    assert (f == 0).sum() > B * (F - K), "the case must have inactive entries among the k largest"
    assert step.active == (f > 0).sum()
    assert torch.equal(step.fired_F, (f > 0).any(0))
    torch.testing.assert_close(step.squared_error, (x - f @ weights.W_dec_FD - weights.b_dec_D).square().sum())


def test_auxk_lowers_the_leftover_error_of_dead_features() -> None:
    """Its sign: a small step along its gradient alone must bring e_hat closer to e (a shipped one went away)."""
    x, weights = make()
    dead = [0, 3, 5, 8, 9]
    with_auxk, without = run(x, weights, dead), run(x, weights, dead, 0.0)
    moved = Weights(
        *(w - 0.05 * (a - b) for w, a, b in zip(weights, with_auxk.gradients, without.gradients, strict=True))
    )
    before, after = oracle(x, weights, dead, 1.0)[1], oracle(x, moved, dead, 1.0)[1]
    assert after < before


def test_auxk_does_not_reach_living_features() -> None:
    """The leftover error is a constant, and living features take no part, even where theirs are the largest z."""
    x, weights = make()
    dead = [0, 3, 5]
    weights.b_enc_F[dead] = -0.5
    with_auxk, without = run(x, weights, dead), run(x, weights, dead, 0.0)
    living = [i for i in range(F) if i not in dead]
    for name in ("W_enc_FD", "b_enc_F", "W_dec_FD"):
        difference = getattr(with_auxk.gradients, name) - getattr(without.gradients, name)
        assert torch.count_nonzero(difference[living]) == 0, name
        assert torch.count_nonzero(difference[dead]) > 0, name


def test_auxk_reconstructs_without_the_decoder_bias() -> None:
    """Where dead features reconstruct the leftover error exactly, the loss is 0 however large b_dec is."""
    x = torch.eye(D, dtype=torch.float64)
    zero = torch.zeros(D, D, dtype=torch.float64)
    eye = torch.eye(D, dtype=torch.float64)
    b_dec = torch.full((D,), 10.0, dtype=torch.float64)
    # D living features that are off (their encoder is 0) and D dead ones that copy x - b_dec, each dimension by itself
    weights = Weights(torch.cat([zero, -eye]), torch.zeros(2 * D, dtype=torch.float64), torch.cat([eye, -eye]), b_dec)
    dead_A = torch.arange(D, 2 * D)
    living_only = Weights(*(w.clone() for w in weights))
    living_only.b_enc_F[:D] = 100.0
    living_only.W_dec_FD[:D] = 0.0  # the k largest are living features that add nothing: e = x - b_dec
    step = topk.loss_and_gradients(
        x, living_only, D, AuxK(1.0, dead_A, len(dead_A), K_AUX), Batch(len(x), torch.float64)
    )
    main = (x - b_dec).square().mean()
    # K_AUX of the D dimensions are reconstructed in each row; the rest of e stays
    e = x - b_dec
    left = e.square().sort(dim=1).values[:, : D - K_AUX].sum() / (e - e.mean(0)).square().sum()
    torch.testing.assert_close(step.loss, main + left)


def test_auxk_is_zero_where_nothing_is_left_over() -> None:
    _, weights = make()
    same_x = weights.b_dec_D.expand(B, D).clone()
    weights.b_enc_F[:] = -1.0
    step = run(same_x, weights, [0, 1])
    assert step.loss == 0
    assert all(torch.isfinite(gradient).all() for gradient in step.gradients)


def test_auxk_is_scaled_down_while_few_features_are_dead() -> None:
    x, weights = make()
    weights.b_enc_F[0] = -100.0  # dead and silent: e_hat = 0, so the ratio is sum |e|^2 / sum |e - mean|^2
    e_loss = run(x, weights, [0]).loss - run(x, weights, [0], 0.0).loss
    z = (x - weights.b_dec_D) @ weights.W_enc_FD.T + weights.b_enc_F
    f = torch.zeros_like(z).scatter(1, z.topk(K, dim=1).indices, z.topk(K, dim=1).values.relu())
    e = x - f @ weights.W_dec_FD - weights.b_dec_D
    expected = COEFFICIENT * (1 / 4) * e.square().sum() / (e - e.mean(0)).square().sum()
    torch.testing.assert_close(e_loss, expected)


def test_ranks_sum_to_the_whole_batch() -> None:
    """Two ranks with unequal shares: their losses and gradients add up to those of one process."""
    x, weights = make()
    dead = torch.tensor([0, 3, 5, 8, 9])
    whole = run(x, weights, dead.tolist())
    shares = [x[::2], x[1::2]]
    e_totals: list[torch.Tensor] = []

    def run_share(share: torch.Tensor, total: torch.Tensor | None) -> Step:
        def reduce(mine: torch.Tensor) -> torch.Tensor:
            e_totals.append(mine)
            return mine if total is None else total

        auxk = AuxK(COEFFICIENT, dead, len(dead), K_AUX)
        return topk.loss_and_gradients(share, weights, K, auxk, Batch(B, torch.float64, reduce))

    for share in shares:
        run_share(share, None)
    first, second = (run_share(share, e_totals[0] + e_totals[1]) for share in shares)
    torch.testing.assert_close(first.loss + second.loss, whole.loss)
    for a, b, expected in zip(first.gradients, second.gradients, whole.gradients, strict=True):
        torch.testing.assert_close(a + b, expected)


def test_bfloat16_products_stay_close_to_float32() -> None:
    x, weights = make()
    x, weights = x.float(), Weights(*(tensor.float() for tensor in weights))
    auxk = AuxK(COEFFICIENT, torch.tensor([0, 3, 5, 8, 9]), 5, K_AUX)
    exact = topk.loss_and_gradients(x, weights, K, auxk, Batch(B, torch.float32))
    rounded = topk.loss_and_gradients(x, weights, K, auxk, Batch(B, torch.bfloat16))
    assert rounded.loss.dtype == torch.float32
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.02, atol=0)
