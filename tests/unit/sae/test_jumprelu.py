"""JumpReLU against autograd in float64, its kernels written here as the papers do, on both backward paths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kubesae.sae import jumprelu, sliced, threshold
from kubesae.sae.step import Batch, Step
from kubesae.sae.weights import Weights
from kubesae.train.adam import Adam
from sae_oracle import assert_gradients, leaves_of, rows_and_weights

if TYPE_CHECKING:
    from kubesae.sae.jumprelu import Recipe

B, D, F = 11, 8, 24
L0 = 0.03
RECIPES = ("anthropic", "gdm")
EPS = {"anthropic": 2.0, "gdm": 0.001 * math.sqrt(D)}


def make(recipe: Recipe, seed: int = 0) -> tuple[torch.Tensor, Weights]:
    """Thresholds that some entries lie close to; with gdm's narrow rectangle they are put there."""
    x, plain = rows_and_weights(B, D, F, seed)
    z = (x - plain.b_dec_D) @ plain.W_enc_FD.T + plain.b_enc_F
    generator = torch.Generator().manual_seed(seed + 7)
    theta = 0.5 + torch.rand(F, generator=generator, dtype=torch.float64)
    close = z.amax(0) > 0.2
    shift = torch.linspace(-0.6, 0.6, F, dtype=torch.float64) * EPS[recipe]
    theta = torch.where(close, z.amax(0).clamp_min(0.2) + shift, theta) if recipe == "gdm" else theta
    weights = Weights(*plain, log_threshold_F=theta.log())
    if recipe == "anthropic":
        weights.W_dec_FD.mul_(torch.linspace(0.3, 2, F, dtype=torch.float64)[:, None])
    return x, weights


def run(x: torch.Tensor, weights: Weights, recipe: Recipe, l0: float = L0) -> Step:
    return jumprelu.loss_and_gradients(x, weights, l0, Batch(B, torch.float64), recipe)


def rectangle(u: torch.Tensor) -> torch.Tensor:
    return ((u > -0.5) & (u < 0.5)).to(u)


class Jump(torch.autograd.Function):
    """Arguments z, theta, eps and what the derivative by its second argument is divided by (1: theta itself)."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, theta: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(z, theta)
        ctx.eps = eps
        return z * (z > theta)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, theta = ctx.saved_tensors
        return grad * (z > theta), -(theta / ctx.eps) * (rectangle((z - theta) / ctx.eps) * grad).sum(0), None


class JumpOfLog(torch.autograd.Function):
    """The same by t = log(theta), with the derivative that Anthropic publishes."""

    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, t: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(z, t)
        ctx.eps = eps
        return z * (z > t.exp())

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, t = ctx.saved_tensors
        near = rectangle((z - t.exp()) / ctx.eps)
        return grad * (z > t.exp()), (-t.exp() / ctx.eps * near * grad).sum(0), None


class Heaviside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: torch.Tensor, theta: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(z, theta)
        ctx.eps = eps
        return (z > theta).to(z)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, theta = ctx.saved_tensors
        return None, -(rectangle((z - theta) / ctx.eps) * grad).sum(0) / ctx.eps, None


def oracle(
    x: torch.Tensor, weights: Weights, recipe: Recipe, l0: float = L0
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor | None]]:
    leaves = W_enc, b_enc, W_dec, b_dec, t = leaves_of(weights)
    z, eps = (x - b_dec) @ W_enc.T + b_enc, EPS[recipe]
    if recipe == "gdm":
        f = Jump.apply(z, t.exp(), eps)
        penalty = l0 * Heaviside.apply(z, t.exp(), eps).sum(1).mean()
    else:
        f, norm = JumpOfLog.apply(z, t, eps), W_dec.norm(dim=1)
        pre = ((t.exp() - z).relu() * norm).sum(1).mean()
        penalty = l0 * torch.tanh(4 * f * norm).sum(1).mean() + 3e-6 / D * pre
    loss = (x - f @ W_dec - b_dec).square().mean() + penalty
    loss.backward()
    return loss.detach(), f.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("sparse_below", [0.0, 2.0], ids=["dense", "sparse"])
@pytest.mark.parametrize("rows", [B, 3], ids=["one-slice", "slices"])
def test_loss_and_gradients_are_autograds(
    recipe: Recipe, sparse_below: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumprelu, "SPARSE_BELOW", sparse_below)
    monkeypatch.setattr(sliced, "_SLICE", rows * F)
    x, weights = make(recipe)
    step = run(x, weights, recipe)
    loss, f, gradients = oracle(x, weights, recipe)
    torch.testing.assert_close(step.loss, loss)
    assert_gradients(step.gradients, gradients)
    assert torch.count_nonzero(step.gradients.log_threshold_F) > 0
    assert step.active == (f > 0).sum()
    assert torch.equal(step.fired_F, (f > 0).any(0))
    torch.testing.assert_close(step.squared_error, (x - f @ weights.W_dec_FD - weights.b_dec_D).square().sum())


@pytest.mark.parametrize("sparse_below", [0.0, 2.0], ids=["dense", "sparse"])
def test_the_pre_activation_loss_is_the_sum_over_all_entries_below(
    sparse_below: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a weight at which it decides the gradients; in the published one it could be missing unnoticed."""
    monkeypatch.setattr(jumprelu, "SPARSE_BELOW", sparse_below)
    x, weights = make("anthropic")
    before = run(x, weights, "anthropic")
    monkeypatch.setattr(jumprelu, "PRE_ACTIVATION", 0.5)
    step = run(x, weights, "anthropic")
    leaves = W_enc, b_enc, W_dec, b_dec, t = leaves_of(weights)
    z = (x - b_dec) @ W_enc.T + b_enc
    loss = (0.5 - 3e-6) / D * ((t.exp() - z).relu() * W_dec.norm(dim=1)).sum(1).mean()
    loss.backward()
    torch.testing.assert_close(step.loss - before.loss, loss.detach())
    added = [a - b for a, b in zip(step.gradients, before.gradients, strict=True)]
    assert_gradients(Weights(*added), [leaf.grad for leaf in leaves])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_kernels_in_closed_form(recipe: Recipe) -> None:
    """One entry, just below its threshold: it is not active, and yet its threshold has a gradient."""
    theta, gap, eps = 0.8, 0.2, EPS[recipe]
    x = torch.zeros(1, D, dtype=torch.float64)
    x[0, 0] = theta - gap * eps
    unit = torch.zeros(1, D, dtype=torch.float64)
    unit[0, 0] = 1.0
    zero = torch.zeros(1, dtype=torch.float64)
    weights = Weights(unit.clone(), zero, unit.clone(), torch.zeros(D, dtype=torch.float64), zero + math.log(theta))
    step = jumprelu.loss_and_gradients(x, weights, L0, Batch(1, torch.float64), recipe)
    df = -2 * float(x[0, 0]) / D
    if recipe == "gdm":
        expected = theta * (-(theta / eps) * df - L0 / eps)
    else:
        expected = -(theta / eps) * (df + L0 * 4) + 3e-6 / D * theta
    assert step.active == 0
    assert step.gradients.log_threshold_F.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_threshold_out_of_reach_has_no_gradient_but_that_of_the_pre_activation_loss(recipe: Recipe) -> None:
    x, weights = make(recipe)
    weights.log_threshold_F.fill_(math.log(1e3))
    step = run(x, weights, recipe)
    expected = torch.zeros(F, dtype=torch.float64)
    if recipe == "anthropic":
        expected += 3e-6 / D * 1e3 * weights.W_dec_FD.norm(dim=1)
    torch.testing.assert_close(step.gradients.log_threshold_F, expected)


def test_in_float32_a_threshold_moves_by_the_learning_rate() -> None:
    """200 steps of Adam at 7e-5 against a gradient of one sign move t by 0.014; bfloat16 would lose most of it."""
    t = torch.full((F,), math.log(0.1))
    plain = Weights(torch.zeros(F, D), torch.zeros(F), torch.zeros(F, D), torch.zeros(D), log_threshold_F=t)
    adam = Adam(plain, unit_decoder=False)
    gradient = plain.each(torch.zeros_like)
    gradient.log_threshold_F.fill_(-1e-4)
    for _ in range(200):
        adam.step(gradient, 7e-5, 1.0)
    torch.testing.assert_close(t - math.log(0.1), torch.full((F,), 200 * 7e-5), rtol=1e-2, atol=0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_in_use_the_thresholds_are_what_training_had(recipe: Recipe) -> None:
    x, weights = make(recipe)
    _, f, _ = oracle(x, weights, recipe)
    used, threshold_F = threshold.in_use(weights)
    torch.testing.assert_close(threshold.encode(x - used.b_dec_D, used, threshold_F, torch.float64).dense(F), f)


@pytest.mark.parametrize("recipe", RECIPES)
def test_ranks_sum_to_the_whole_batch(recipe: Recipe) -> None:
    x, weights = make(recipe)
    whole = run(x, weights, recipe)
    parts = [run(share, weights, recipe) for share in (x[::2], x[1::2], x[:0])]
    torch.testing.assert_close(parts[0].loss + parts[1].loss + parts[2].loss, whole.loss)
    for *shares, expected in zip(*(part.gradients for part in parts), whole.gradients, strict=True):
        torch.testing.assert_close(sum(shares), expected)


def test_bfloat16_products_stay_close_to_float32() -> None:
    x, weights = make("anthropic")
    x, weights = x.float(), weights.each(torch.Tensor.float)
    exact, rounded = (
        jumprelu.loss_and_gradients(x, weights, L0, Batch(B, dtype), "anthropic")
        for dtype in (torch.float32, torch.bfloat16)
    )
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=0.02, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in rounded.gradients)


@pytest.mark.parametrize("d_model", [64, 4096])
def test_gdms_numbers_are_in_units_of_the_inputs_norm(d_model: int) -> None:
    """Published for inputs of norm 1; ours have a norm of sqrt(d_model)."""
    assert jumprelu.bandwidth("gdm", d_model) == pytest.approx(1e-3 * d_model**0.5)
    assert jumprelu.first_threshold("gdm", d_model) == pytest.approx(1e-3 * d_model**0.5)
    assert (jumprelu.bandwidth("anthropic", d_model), jumprelu.first_threshold("anthropic", d_model)) == (2.0, 0.1)


def test_weights_of_another_architecture_are_no_jumprelu_sae() -> None:
    x, weights = rows_and_weights(B, D, F)
    with pytest.raises(ValueError, match="log_threshold is missing"):
        run(x, weights, "gdm")
