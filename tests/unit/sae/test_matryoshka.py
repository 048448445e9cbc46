"""Matryoshka BatchTopK against autograd in float64, and how shares become prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kubesae.sae import batchtopk
from kubesae.sae.auxk import AuxK
from kubesae.sae.matryoshka import prefix_sizes
from kubesae.sae.step import Batch, Step
from sae_oracle import COEFFICIENT, assert_gradients, auxk_loss, leaves_of, rows_and_weights

if TYPE_CHECKING:
    from kubesae.sae.weights import Weights

B, D, F, K = 13, 8, 24, 3


def run(x: torch.Tensor, weights: Weights, dead: list[int], prefixes: tuple[int, ...] | None) -> tuple[Step, float]:
    auxk = AuxK(COEFFICIENT, torch.tensor(dead, dtype=torch.int64), len(dead), 4)
    return batchtopk.loss_and_gradients(x, weights, K, auxk, Batch(B, torch.float64), prefixes)


@pytest.mark.parametrize("dead", [[], [1, 5, 20]], ids=["none dead", "some dead"])
@pytest.mark.parametrize("prefixes", [(F,), (2, 6, 13, F), (1, 2, 3, F - 1, F)], ids=str)
def test_loss_and_gradients_are_autograds(prefixes: tuple[int, ...], dead: list[int]) -> None:
    x, weights = rows_and_weights(B, D, F)
    step, cutoff = run(x, weights, dead, prefixes)
    leaves = W_enc, b_enc, W_dec, b_dec = leaves_of(weights)
    z = (x - b_dec) @ W_enc.T + b_enc
    f = torch.where(z >= z.flatten().topk(B * K).values[-1], z.relu(), 0.0)
    nested = [(x - f[:, :m] @ W_dec[:m] - b_dec).square().mean() for m in prefixes]
    loss = torch.stack(nested).mean() + auxk_loss(x, f @ W_dec + b_dec, z, W_dec, dead, COEFFICIENT)
    loss.backward()
    assert cutoff == f[f > 0].min()
    assert step.active == B * K
    torch.testing.assert_close(step.loss, loss.detach())
    torch.testing.assert_close(step.squared_error, nested[-1].detach() * B * D)
    assert torch.equal(step.fired_F, (f > 0).any(0))
    assert_gradients(step.gradients, [leaf.grad for leaf in leaves])


def test_with_one_prefix_it_is_batchtopk() -> None:
    x, weights = rows_and_weights(B, D, F)
    nested, cutoff = run(x, weights, [3], (F,))
    plain, expected = run(x, weights, [3], None)
    assert cutoff == expected
    torch.testing.assert_close(nested.loss, plain.loss)
    assert_gradients(nested.gradients, list(plain.gradients))


@pytest.mark.parametrize(
    ("shares", "d_sae", "expected"),
    [
        ((1 / 16, 1 / 4, 1 / 2), 4608, (288, 1152, 2304, 4608)),
        ((0.5, 0.25), 8, (2, 4, 8)),
        ((0.01, 0.02, 0.999), 10, (1, 10)),
        ((), 10, (10,)),
    ],
)
def test_shares_become_prefixes(shares: tuple[float, ...], d_sae: int, expected: tuple[int, ...]) -> None:
    assert prefix_sizes(shares, d_sae) == expected
