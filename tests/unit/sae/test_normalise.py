"""Normalisation: what it promises of its sample, and folding it into weights."""

from __future__ import annotations

import pytest
import torch

from kubesae.errors import DamagedError
from kubesae.sae import Normaliser, Sae, SaeConfig, Weights, fold, relu, topk
from kubesae.sae.kernels import decode

ROWS, D, F = 400, 6, 16


def raw() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, D, generator=generator) * torch.tensor([1.0, 2, 30, 4, 5, 6]) + 40


def weights() -> Weights:
    generator = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Weights(randn(F, D), 0.1 * randn(F), randn(F, D), 0.1 * randn(D))


def test_the_sample_has_mean_zero_and_mean_square_one() -> None:
    normalised = Normaliser.fit(raw()).apply(raw())
    torch.testing.assert_close(normalised.mean(0), torch.zeros(D), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.square().mean(), torch.tensor(1.0))


def test_one_scalar_keeps_the_directions_lengths_apart() -> None:
    normalised = Normaliser.fit(raw()).apply(raw())
    assert normalised[:, 2].std() > 10 * normalised[:, 0].std()


def test_apply_leaves_its_input_alone_and_takes_bfloat16() -> None:
    x = raw()
    before = x.clone()
    normaliser = Normaliser.fit(x)
    normaliser.apply(x)
    assert torch.equal(x, before)
    rounded = x.bfloat16()
    torch.testing.assert_close(normaliser.apply(rounded), normaliser.apply(rounded.float()))
    assert normaliser.apply(rounded).dtype == torch.float32


@pytest.mark.parametrize("bad", [torch.ones(5, D), torch.full((5, D), float("nan"))])
def test_a_sample_without_variance_is_refused(bad: torch.Tensor) -> None:
    with pytest.raises(DamagedError, match="cannot be normalised"):
        Normaliser.fit(bad)


def test_folded_relu_reconstructs_what_the_trained_one_does() -> None:
    x, trained = raw(), weights()
    normaliser = Normaliser.fit(x)
    f = relu.encode(normaliser.apply(x) - trained.b_dec_D, trained, torch.float32)
    expected = (f @ trained.W_dec_FD + trained.b_dec_D) / normaliser.scale + normaliser.mean_D

    sae = Sae(SaeConfig(architecture="relu", d_model=D, d_sae=F), fold(trained, normaliser))
    reconstruction, features = sae(x)
    torch.testing.assert_close(reconstruction, expected, rtol=1e-4, atol=1e-3)
    lengths_F = trained.W_dec_FD.norm(dim=1) / normaliser.scale
    torch.testing.assert_close(features, f * lengths_F, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(sae.weights.W_dec_FD.norm(dim=1), torch.ones(F))


def test_folded_topk_reconstructs_what_the_trained_one_does() -> None:
    x, trained = raw(), weights()
    trained.W_dec_FD.div_(trained.W_dec_FD.norm(dim=1, keepdim=True))
    normaliser = Normaliser.fit(x)
    code = topk.encode(normaliser.apply(x) - trained.b_dec_D, trained, 4, torch.float32)
    expected = (decode(code, trained.W_dec_FD) + trained.b_dec_D) / normaliser.scale + normaliser.mean_D

    sae = Sae(SaeConfig(architecture="topk", d_model=D, d_sae=F, k=4), fold(trained, normaliser))
    reconstruction, features = sae(x)
    torch.testing.assert_close(reconstruction, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(features, code.dense(F) / normaliser.scale, rtol=1e-4, atol=1e-3)


def test_folding_leaves_a_decoder_row_of_zeros_silent_but_finite() -> None:
    trained = weights()
    trained.W_dec_FD[3] = 0
    folded = fold(trained, Normaliser.fit(raw()))
    assert all(torch.isfinite(tensor).all() for tensor in folded)
    assert torch.count_nonzero(folded.W_dec_FD[3]) == 0
