"""ReLU + L1 against autograd in float64, on both of its backward paths."""

from __future__ import annotations

import math

import pytest
import torch

from kubesae.sae import relu, sliced
from kubesae.sae.step import Batch
from kubesae.sae.weights import Weights
from sae_oracle import assert_gradients, leaves_of

B, D, F = 11, 6, 20
L1 = 0.03


def make() -> tuple[torch.Tensor, Weights]:
    generator = torch.Generator().manual_seed(3)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return randn(B, D) + 0.5, Weights(randn(F, D), randn(F) - 1, 0.4 * randn(F, D), 0.2 * randn(D))


def oracle(x: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, torch.Tensor, Weights]:
    """Loss, activations and gradients, by autograd."""
    leaves = W_enc, b_enc, W_dec, b_dec = leaves_of(weights)
    f = ((x - b_dec) @ W_enc.T + b_enc).relu()
    x_hat = f @ W_dec + b_dec
    penalty = (f * W_dec.norm(dim=1)).sum(1).mean()
    loss = (x - x_hat).square().mean() + L1 * relu.PENALTY / math.sqrt(D) * penalty
    loss.backward()
    return loss.detach(), f.detach(), Weights(*(leaf.grad for leaf in leaves))


@pytest.mark.parametrize("sparse_below", [0.0, 1.0], ids=["dense", "sparse"])
@pytest.mark.parametrize("rows", [B, 3], ids=["one-slice", "slices"])
def test_loss_and_gradients_are_autograds(sparse_below: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relu, "SPARSE_BELOW", sparse_below)
    monkeypatch.setattr(sliced, "_SLICE", rows * F)
    x, weights = make()
    step = relu.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
    loss, f, gradients = oracle(x, weights)
    torch.testing.assert_close(step.loss, loss)
    assert_gradients(step.gradients, list(gradients))
    assert step.active == (f > 0).sum()
    assert torch.equal(step.fired_F, (f > 0).any(0))


def test_penalty_weighs_activations_by_the_decoders_norms() -> None:
    """Scaling a decoder row up and its encoder row down changes neither the reconstruction nor the loss."""
    x, weights = make()
    scale_F = torch.linspace(0.25, 4, F, dtype=torch.float64)
    scaled = Weights(
        weights.W_enc_FD / scale_F[:, None], weights.b_enc_F / scale_F, weights.W_dec_FD * scale_F[:, None],
        weights.b_dec_D,
    )  # fmt: skip
    losses = [relu.loss_and_gradients(x, w, L1, Batch(B, torch.float64)).loss for w in (weights, scaled)]
    torch.testing.assert_close(losses[0], losses[1])


def test_a_decoder_row_of_zeros_has_finite_gradients() -> None:
    x, weights = make()
    weights.W_dec_FD[4] = 0
    step = relu.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
    assert all(torch.isfinite(gradient).all() for gradient in step.gradients)


def test_ranks_sum_to_the_whole_batch() -> None:
    x, weights = make()
    whole = relu.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
    parts = [relu.loss_and_gradients(share, weights, L1, Batch(B, torch.float64)) for share in (x[::2], x[1::2])]
    torch.testing.assert_close(parts[0].loss + parts[1].loss, whole.loss)
    for a, b, expected in zip(parts[0].gradients, parts[1].gradients, whole.gradients, strict=True):
        torch.testing.assert_close(a + b, expected)


def test_bfloat16_products_stay_close_to_float32() -> None:
    x, weights = make()
    x, weights = x.float(), Weights(*(tensor.float() for tensor in weights))
    exact = relu.loss_and_gradients(x, weights, L1, Batch(B, torch.float32))
    rounded = relu.loss_and_gradients(x, weights, L1, Batch(B, torch.bfloat16))
    for mine, expected in zip(rounded.gradients, exact.gradients, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, expected, rtol=0.1, atol=0.02)
