"""Matryoshka BatchTopK against autograd in float64, and how shares become prefixes."""

from __future__ import annotations

import pytest
import torch

from kubesae.sae import batchtopk, matryoshka
from kubesae.sae.auxk import AuxK
from kubesae.sae.matryoshka import prefix_sizes
from kubesae.sae.weights import Weights

B, D, F, K = 13, 8, 24, 3
COEFFICIENT = 1 / 32


def make(seed: int = 0) -> tuple[torch.Tensor, Weights]:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    decoder_FD = randn(F, D)
    decoder_FD /= decoder_FD.norm(dim=1, keepdim=True)
    return randn(B, D) + 0.5, Weights(randn(F, D), 0.3 * randn(F), decoder_FD, 0.2 * randn(D))


def options(dead: list[int]) -> tuple[AuxK, dict[str, object]]:
    return AuxK(COEFFICIENT, torch.tensor(dead, dtype=torch.int64)), {"total_rows": B, "dtype": torch.float64}


@pytest.mark.parametrize("dead", [[], [1, 5, 20]], ids=["none dead", "some dead"])
@pytest.mark.parametrize("prefixes", [(F,), (2, 6, 13, F), (1, 2, 3, F - 1, F)], ids=str)
def test_loss_and_gradients_are_autograds(prefixes: tuple[int, ...], dead: list[int]) -> None:
    x, weights = make()
    auxk, others = options(dead)
    step, cutoff = matryoshka.loss_and_gradients(x, weights, K, prefixes, auxk, **others)
    leaves = [tensor.clone().requires_grad_() for tensor in weights]
    W_enc, b_enc, W_dec, b_dec = leaves
    z = (x - b_dec) @ W_enc.T + b_enc
    f = torch.where(z >= z.flatten().topk(B * K).values[-1], z.relu(), 0.0)
    nested = [(x - f[:, :m] @ W_dec[:m] - b_dec).square().mean() for m in prefixes]
    loss = torch.stack(nested).mean()
    if dead:
        e = (x - f @ W_dec - b_dec).detach()
        left = (e - z[:, dead].relu() @ W_dec[dead]).square().sum() / (e - e.mean(0)).square().sum()
        loss = loss + COEFFICIENT * len(dead) / 4 * left
    loss.backward()
    assert cutoff == f[f > 0].min()
    assert step.active == B * K
    torch.testing.assert_close(step.loss, loss.detach())
    torch.testing.assert_close(step.squared_error, nested[-1].detach() * B * D)
    assert torch.equal(step.fired_F, (f > 0).any(0))
    for name, mine, leaf in zip(Weights.names(), step.gradients, leaves, strict=True):
        torch.testing.assert_close(mine, leaf.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_with_one_prefix_it_is_batchtopk() -> None:
    x, weights = make()
    auxk, others = options([3])
    nested, cutoff = matryoshka.loss_and_gradients(x, weights, K, (F,), auxk, **others)
    plain, expected = batchtopk.loss_and_gradients(x, weights, K, auxk, **others)
    assert cutoff == expected
    torch.testing.assert_close(nested.loss, plain.loss)
    for mine, theirs in zip(nested.gradients, plain.gradients, strict=True):
        torch.testing.assert_close(mine, theirs)


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
