"""Gated SAEs against autograd in float64, on both backward paths, and the SAE with thresholds that they become."""

from __future__ import annotations

import math

import pytest
import torch

from kubesae.sae import gated, relu, sliced, threshold
from kubesae.sae.step import Batch
from kubesae.sae.weights import Weights
from sae_oracle import assert_gradients, leaves_of, rows_and_weights

B, D, F = 11, 8, 24
L1 = 0.02


def make(seed: int = 0) -> tuple[torch.Tensor, Weights]:
    x, plain = rows_and_weights(B, D, F, seed)
    generator = torch.Generator().manual_seed(seed + 7)
    r_mag, b_gate = (0.5 * torch.randn(F, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, Weights(*plain, r_mag_F=r_mag, b_gate_F=b_gate - 1)


def forward(x: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations, gates and the reconstruction, as the paper writes them."""
    W_gate, b_mag, W_dec, b_dec, r_mag, b_gate = leaves
    gate = (x - b_dec) @ W_gate.T + b_gate
    magnitude = ((x - b_dec) @ (r_mag.exp()[:, None] * W_gate).T + b_mag).relu()
    f = (gate > 0) * magnitude
    return f, gate, f @ W_dec + b_dec


def oracle(x: torch.Tensor, weights: Weights) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor | None]]:
    leaves = leaves_of(weights)
    f, gate, x_hat = forward(x, leaves)
    via = gate.relu() @ leaves[2].detach() + leaves[3].detach()
    penalty = L1 * relu.PENALTY / math.sqrt(D) * gate.relu().sum(1).mean()
    loss = (x - x_hat).square().mean() + penalty + (x - via).square().mean()
    loss.backward()
    return loss.detach(), f.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("sparse_below", [0.0, 1.0], ids=["dense", "sparse"])
@pytest.mark.parametrize("rows", [B, 3], ids=["one-slice", "slices"])
def test_loss_and_gradients_are_autograds(sparse_below: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated, "SPARSE_BELOW", sparse_below)
    monkeypatch.setattr(sliced, "_SLICE", rows * F)
    x, weights = make()
    step = gated.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
    loss, f, gradients = oracle(x, weights)
    torch.testing.assert_close(step.loss, loss)
    assert_gradients(step.gradients, gradients)
    assert step.active == (f > 0).sum()
    assert torch.equal(step.fired_F, (f > 0).any(0))
    torch.testing.assert_close(step.squared_error, (x - f @ weights.W_dec_FD - weights.b_dec_D).square().sum())


def test_the_case_has_open_gates_without_magnitude_and_the_reverse() -> None:
    x, weights = make()
    f, gate, _ = forward(x, list(weights))
    z = (x - weights.b_dec_D) @ (weights.r_mag_F.exp()[:, None] * weights.W_enc_FD).T + weights.b_enc_F
    assert ((gate > 0) & (z <= 0)).any()
    assert ((gate <= 0) & (z > 0)).any()
    assert (f > 0).any()


def test_the_frozen_reconstruction_does_not_reach_the_decoder() -> None:
    """Where nothing is active the decoder has no gradient, however much the gates leave over."""
    x, weights = make()
    weights.b_enc_F[:] = -100.0
    step = gated.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
    assert torch.count_nonzero(step.gradients.W_dec_FD) == 0
    assert torch.count_nonzero(step.gradients.W_enc_FD) > 0


def test_in_use_it_is_an_sae_with_thresholds() -> None:
    x, weights = make()
    f, _, x_hat = forward(x, list(weights))
    used, threshold_F = threshold.in_use(weights)
    code = threshold.encode(x - used.b_dec_D, used, threshold_F, torch.float64)
    torch.testing.assert_close(code.dense(F), f)
    torch.testing.assert_close(code.dense(F) @ used.W_dec_FD + used.b_dec_D, x_hat)
    assert (threshold_F > 0).any()
    assert (threshold_F == 0).any()


def test_ranks_sum_to_the_whole_batch() -> None:
    x, weights = make()
    whole = gated.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
    parts = [
        gated.loss_and_gradients(share, weights, L1, Batch(B, torch.float64)) for share in (x[::2], x[1::2], x[:0])
    ]
    torch.testing.assert_close(parts[0].loss + parts[1].loss + parts[2].loss, whole.loss)
    for *shares, expected in zip(*(part.gradients for part in parts), whole.gradients, strict=True):
        torch.testing.assert_close(sum(shares), expected)


def test_bfloat16_products_stay_close_to_float32() -> None:
    x, weights = make()
    x, weights = x.float(), weights.each(torch.Tensor.float)
    exact = gated.loss_and_gradients(x, weights, L1, Batch(B, torch.float32))
    rounded = gated.loss_and_gradients(x, weights, L1, Batch(B, torch.bfloat16))
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.02, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in rounded.gradients)


def test_weights_of_another_architecture_are_no_gated_sae() -> None:
    x, weights = rows_and_weights(B, D, F)
    with pytest.raises(ValueError, match="r_mag or b_gate is missing"):
        gated.loss_and_gradients(x, weights, L1, Batch(B, torch.float64))
