"""BatchTopK against autograd in float64; its cutoff against sorting, on one rank and on several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kubesae.sae import batchtopk, encoder
from kubesae.sae.auxk import AuxK
from kubesae.sae.batchtopk import kth_largest
from kubesae.sae.encoder import SlicedEncoder
from kubesae.sae.shard import alone
from kubesae.sae.step import Batch, Step
from kubesae.sae.weights import Weights
from sae_oracle import COEFFICIENT, assert_gradients, auxk_loss, leaves_of, rows_and_weights

if TYPE_CHECKING:
    from kubesae.sae.kernels import Code

B, D, F, K = 13, 8, 24, 3


def make(seed: int = 0) -> tuple[torch.Tensor, Weights]:
    x, weights = rows_and_weights(B, D, F, seed)
    return x * torch.linspace(0.2, 3, B, dtype=torch.float64)[:, None], weights  # rows that want few features, and many


def run(x: torch.Tensor, weights: Weights, dead: list[int], total_rows: int = B) -> tuple[Step, float]:
    auxk = AuxK(COEFFICIENT, torch.tensor(dead, dtype=torch.int64), len(dead), 4)
    return batchtopk.loss_and_gradients(x, weights, K, auxk, Batch(total_rows, torch.float64))


@pytest.mark.parametrize("dead", [[], [5], [0, 3, 5, 8, 9, 13]], ids=lambda d: f"{len(d)}-dead")
def test_loss_and_gradients_are_autograds(dead: list[int]) -> None:
    x, weights = make()
    step, cutoff = run(x, weights, dead)
    leaves = W_enc, b_enc, W_dec, b_dec = leaves_of(weights)
    z = (x - b_dec) @ W_enc.T + b_enc
    kept = z >= z.flatten().topk(B * K).values[-1]
    x_hat = torch.where(kept, z.relu(), 0.0) @ W_dec + b_dec
    loss = (x - x_hat).square().mean() + auxk_loss(x, x_hat, z, W_dec, dead, COEFFICIENT)
    loss.backward()
    assert kept.sum() == B * K
    assert kept.sum(1).min() < K < kept.sum(1).max(), "rows must differ in what they take"
    assert step.active == B * K
    assert cutoff == z[kept].min()
    torch.testing.assert_close(step.loss, loss.detach())
    assert_gradients(step.gradients, [leaf.grad for leaf in leaves])


def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = make()
    whole, cutoff = run(x, weights, [1, 2])
    monkeypatch.setattr(encoder, "_SLICE", 1)
    monkeypatch.setattr(encoder, "_SLICE_ROWS", 1)
    sliced, again = run(x, weights, [1, 2])
    assert again == pytest.approx(cutoff, rel=1e-12)
    for mine, expected in zip(sliced.gradients, whole.gradients, strict=True):
        torch.testing.assert_close(mine, expected)


def test_a_sample_that_misleads_costs_time_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = make()
    expected = run(x, weights, [])[0]
    floors, above = [], SlicedEncoder.above

    def noted(self: SlicedEncoder, x_centred: torch.Tensor, floor: float) -> Code:
        floors.append(floor)
        return above(self, x_centred, floor)

    monkeypatch.setattr(SlicedEncoder, "above", noted)
    monkeypatch.setattr(batchtopk, "_SAMPLE_ROWS", 1)
    monkeypatch.setattr(batchtopk, "_MARGIN", 1)
    misled = run(x.flip(0), weights, [])[0]  # the sample is the largest row
    assert floors[0] > 0
    assert floors[1:] == [0.0]
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
    code, cutoff = batchtopk.encode(x, weights, 1, Batch(4, torch.float64))
    assert len(code.values_N) == 4
    assert (code.values_N == cutoff).all()
    code, _ = batchtopk.encode(x[:3], weights, 1, Batch(2, torch.float64))
    assert len(code.values_N) == 3  # two were wanted; the third is equal


def test_in_bfloat16_about_as_many_are_kept() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 64, generator=generator)
    decoder = torch.nn.functional.normalize(torch.randn(512, 64, generator=generator), dim=1)
    weights = Weights(decoder.clone(), torch.zeros(512), decoder, torch.zeros(64))
    code, cutoff = batchtopk.encode(x, weights, 16, Batch(256, torch.bfloat16))
    assert 16 * 256 <= len(code.values_N) < 1.1 * 16 * 256
    assert cutoff == code.values_N.min()


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=1, max_size=40), st.integers(1, 45))
def test_the_kth_largest_is_what_sorting_gives(values: list[float], k: int) -> None:
    expected = sorted(values)[-k] if k <= len(values) else 0.0
    for dtype in (torch.float32, torch.float64):
        assert kth_largest(torch.tensor(values, dtype=dtype), k, alone) == expected
