"""BatchTopK against autograd in float64; its cutoff against sorting, on one rank and on several."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.sae import batchtopk, kernels
from kubesae.sae.auxk import AuxK
from kubesae.sae.batchtopk import kth_largest
from kubesae.sae.weights import Weights

B, D, F, K = 13, 8, 24, 3
COEFFICIENT = 1 / 32


def same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def make(seed: int = 0) -> tuple[torch.Tensor, Weights]:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    decoder_FD = randn(F, D)
    decoder_FD /= decoder_FD.norm(dim=1, keepdim=True)
    scale_B1 = torch.linspace(0.2, 3, B, dtype=torch.float64)[:, None]  # rows that want few features, and many
    return (randn(B, D) + 0.5) * scale_B1, Weights(randn(F, D), 0.3 * randn(F), decoder_FD, 0.2 * randn(D))


def run(x: torch.Tensor, weights: Weights, dead: list[int], **changes: object) -> tuple[batchtopk.Step, float]:
    auxk = AuxK(COEFFICIENT, torch.tensor(dead, dtype=torch.int64))
    options = {"total_rows": len(x), "dtype": torch.float64} | changes
    return batchtopk.loss_and_gradients(x, weights, K, auxk, **options)


@pytest.mark.parametrize("dead", [[], [5], [0, 3, 5, 8, 9, 13]], ids=lambda d: f"{len(d)}-dead")
def test_loss_and_gradients_are_autograds(dead: list[int]) -> None:
    x, weights = make()
    step, cutoff = run(x, weights, dead)
    leaves = [tensor.clone().requires_grad_() for tensor in weights]
    W_enc, b_enc, W_dec, b_dec = leaves
    z = (x - b_dec) @ W_enc.T + b_enc
    kept = z >= z.flatten().topk(B * K).values[-1]
    x_hat = torch.where(kept, z.relu(), 0.0) @ W_dec + b_dec
    loss = (x - x_hat).square().mean()
    if dead:
        e = (x - x_hat).detach()
        top = z[:, dead].topk(min(4, len(dead)), dim=1)
        f = torch.zeros_like(z[:, dead]).scatter(1, top.indices, top.values.relu())
        left = (e - f @ W_dec[dead]).square().sum() / (e - e.mean(0)).square().sum()
        loss = loss + COEFFICIENT * min(len(dead) / 4, 1.0) * left
    loss.backward()
    assert kept.sum() == B * K
    assert kept.sum(1).min() < K < kept.sum(1).max(), "rows must differ in what they take"
    assert step.active == B * K
    assert cutoff == z[kept].min()
    torch.testing.assert_close(step.loss, loss.detach())
    for name, mine, leaf in zip(Weights.names(), step.gradients, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = make()
    whole, cutoff = run(x, weights, [1, 2])
    monkeypatch.setattr(kernels, "_SLICE", 1)
    monkeypatch.setattr(kernels, "_SLICE_ROWS", 2)
    sliced, again = run(x, weights, [1, 2])
    assert again == pytest.approx(cutoff, rel=1e-12)
    for mine, expected in zip(sliced.gradients, whole.gradients, strict=True):
        torch.testing.assert_close(mine, expected)


def test_a_sample_that_misleads_costs_time_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = make()
    expected = run(x, weights, [])[0]
    monkeypatch.setattr(kernels, "_SLICE", 1)
    monkeypatch.setattr(kernels, "_SLICE_ROWS", 2)
    largest_first = x.flip(0)  # the sample is the two largest rows: its floor cuts off too much
    misled = run(largest_first, weights, [])[0]
    torch.testing.assert_close(misled.loss, expected.loss)
    assert misled.active == expected.active == B * K


def test_where_too_few_are_positive_all_stay() -> None:
    x, weights = make()
    weights.b_enc_F[:] = -8.0
    z = (x - weights.b_dec_D) @ weights.W_enc_FD.T + weights.b_enc_F
    step, cutoff = run(x, weights, [])
    assert 0 < step.active == (z > 0).sum() < B * K
    assert cutoff == 0.0


def test_rows_of_no_rank_are_no_reason_to_fail() -> None:
    x, weights = make()
    step, cutoff = run(x[:0], weights, [], total_rows=1)
    assert step.active == 0
    assert cutoff == 0.0


def test_ties_at_the_cutoff_all_stay() -> None:
    x = torch.ones(4, D, dtype=torch.float64)
    _, weights = make()
    code, cutoff = batchtopk.encode(x, weights, 1, 4, torch.float64, same)
    assert len(code.values_N) == 4
    assert (code.values_N == cutoff).all()
    code, _ = batchtopk.encode(x[:3], weights, 1, 2, torch.float64, same)
    assert len(code.values_N) == 3  # two were wanted; the third is equal


def test_in_bfloat16_about_as_many_are_kept() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 64, generator=generator)
    decoder = torch.nn.functional.normalize(torch.randn(512, 64, generator=generator), dim=1)
    weights = Weights(decoder.clone(), torch.zeros(512), decoder, torch.zeros(64))
    code, cutoff = batchtopk.encode(x, weights, 16, 256, torch.bfloat16, same)
    assert 16 * 256 <= len(code.values_N) < 1.1 * 16 * 256
    assert cutoff == code.values_N.min()


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=40), st.integers(1, 45))
def test_the_kth_largest_is_what_sorting_gives(values: list[float], k: int) -> None:
    expected = sorted(values)[-k] if k <= len(values) else 0.0
    for dtype in (torch.float32, torch.float64):
        assert kth_largest(torch.tensor(values, dtype=dtype), k, same) == expected
