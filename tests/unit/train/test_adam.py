"""One step of the optimiser: Adam's formula, clipping, and decoder rows that keep norm 1; compiled and in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kubesae.sae import Weights, native
from kubesae.train.adam import BETAS, EPSILON, Adam

D, F = 8, 32
NO_LIMIT = 1e9


@pytest.fixture(autouse=True, params=["native", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(native, "compiled", lambda: None)
    elif native.compiled() is None:
        pytest.skip(f"no compiled kernels: {native.reason()}")


def draw(generator: np.random.Generator) -> Weights:
    shapes = ((F, D), (F,), (F, D), (D,))
    return Weights(*(torch.from_numpy(generator.normal(size=shape).astype("f4")) for shape in shapes))


@pytest.mark.parametrize("largest", [NO_LIMIT, 0.5], ids=["free", "clipped"])
@pytest.mark.parametrize("unit", [False, True], ids=["free decoder", "unit decoder"])
def test_it_is_the_published_algorithm(largest: float, *, unit: bool) -> None:
    generator = np.random.default_rng(0)
    weights = draw(generator)
    weights.W_dec_FD.div_(weights.W_dec_FD.norm(dim=1, keepdim=True))
    expected = [tensor.double().numpy().copy() for tensor in weights]
    first, second = ([np.zeros_like(w) for w in expected] for _ in range(2))
    adam = Adam(weights, unit_decoder=unit)
    for step in range(1, 4):
        drawn = draw(generator)
        gradients = [tensor.double().numpy().copy() for tensor in drawn]
        if unit:  # nothing along the rows
            gradients[2] -= (gradients[2] * expected[2]).sum(1, keepdims=True) * expected[2]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        torch.testing.assert_close(adam.step(drawn, 0.01, largest), norm, rtol=1e-5, atol=0)
        for w, m, v, g in zip(expected, first, second, gradients, strict=True):
            cut = g * min(1.0, largest / norm)
            m[:] = BETAS[0] * m + (1 - BETAS[0]) * cut
            v[:] = BETAS[1] * v + (1 - BETAS[1]) * cut**2
            w[:] -= 0.01 * (m / (1 - BETAS[0] ** step)) / (np.sqrt(v / (1 - BETAS[1] ** step)) + EPSILON)
        if unit:
            expected[2] /= np.linalg.norm(expected[2], axis=1, keepdims=True)
    for mine, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(mine.double(), torch.from_numpy(wanted), rtol=1e-4, atol=1e-6)


def test_it_goes_on_where_it_was() -> None:
    generator = np.random.default_rng(1)
    weights = draw(generator)
    copied = Weights(*(tensor.clone() for tensor in weights))
    gradients = [draw(generator) for _ in range(3)]
    whole = Adam(weights, unit_decoder=True)
    for gradient in gradients:
        whole.step(Weights(*(tensor.clone() for tensor in gradient)), 0.01, 1.0)
    begun = Adam(copied, unit_decoder=True)
    begun.step(Weights(*(tensor.clone() for tensor in gradients[0])), 0.01, 1.0)
    resumed = Adam(copied, unit_decoder=True)
    for mine, theirs in zip(
        [*resumed.moments, *resumed.square_moments], [*begun.moments, *begun.square_moments], strict=True
    ):
        mine.copy_(theirs)
    resumed.start_at(1)
    for gradient in gradients[1:]:
        resumed.step(gradient, 0.01, 1.0)
    assert all(map(torch.equal, weights, copied))
