"""sparsify's formulas against what is imported; and what is refused."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.sae.formats import sparsify
from kubesae.sae.inference import Sae
from random_sae import random_sae

D, F, K = 6, 24, 3


def config_of(**changes):
    config = {
        "activation": "topk",
        "expansion_factor": 4,
        "normalize_decoder": True,
        "num_latents": 0,
        "k": K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D,
    } | changes
    return {name: value for name, value in config.items() if value is not ...}


def tensors_of():
    generator = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (F, D), "encoder.bias": (F,), "W_dec": (F, D), "b_dec": (D,)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def read(config, tensors):
    files = {"cfg.json": json.dumps(config).encode(), "sae.safetensors": safetensors.torch.save(tensors)}
    return sparsify.read(files, "there")


def test_the_function_is_that_of_sparsify_and_the_weights_stay():
    tensors = tensors_of()
    foreign = read(config_of(), tensors)
    assert all(torch.equal(*pair) for pair in zip(foreign.weights, tensors.values(), strict=True))
    assert "decoder rows have norms from" in foreign.notes[0]  # nothing was folded: it would change the k largest
    x = torch.randn(50, D)
    z = ((x - tensors["b_dec"]).double() @ tensors["encoder.weight"].T.double() + tensors["encoder.bias"]).relu()
    top = z.topk(K, dim=-1)
    f = torch.zeros_like(z).scatter(-1, top.indices, top.values)
    x_hat, ours = Sae(foreign.config, foreign.weights)(x)
    torch.testing.assert_close(ours.double(), f, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_hat.double(), f @ tensors["W_dec"].double() + tensors["b_dec"], rtol=1e-5, atol=1e-5)


def test_of_equal_features_the_lower_number_is_among_the_k_largest():
    """sparsify leaves it open: torch.topk of equal values."""
    tensors = {"encoder.weight": torch.zeros(F, D), "encoder.bias": torch.ones(F)}
    foreign = read(config_of(), tensors_of() | tensors)
    assert Sae(foreign.config, foreign.weights).encode(torch.zeros(1, D)).nonzero()[:, 1].tolist() == [0, 1, 2]


def test_its_number_of_features():
    assert read(config_of(num_latents=F, expansion_factor=99), tensors_of()).config.d_sae == F
    assert read(config_of(num_latents=...), tensors_of()).config.d_sae == F
    with pytest.raises(DamagedError, match=r"encoder.weight with shape \[30, 6\], but it is torch.float32 \[24, 6\]"):
        read(config_of(expansion_factor=5), tensors_of())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation": "groupmax"}, 'activation: "groupmax", which kubesae does not have'),
        ({"skip_connection": True}, "skip_connection: true"),
        ({"transcode": True}, "transcode: true"),
        ({"signed": True}, "signed: true"),
        ({"k": ...}, "k is None"),
        ({"k": 0}, "k is 0, not a number from 1 to 24"),
        ({"k": 25}, "k is 25"),
        ({"d_in": ...}, "d_in is None"),
        ({"num_latents": ..., "expansion_factor": ...}, "expansion_factor is None"),
        ({"num_latents": -1}, "num_latents is -1"),
    ],
)
def test_what_kubesae_has_no_form_for_is_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        read(config_of(**changes), tensors_of())


def test_other_tensors_than_there_should_be_are_refused():
    with pytest.raises(DamagedError, match="there should be a tensor W_dec"):
        read(config_of(), {name: tensor for name, tensor in tensors_of().items() if name != "W_dec"})
    with pytest.raises(ConfigError, match="holds W_skip too"):
        read(config_of(), tensors_of() | {"W_skip": torch.zeros(D, D)})


def test_what_is_written():
    files = sparsify.write(random_sae("topk", D, F, K))
    assert json.loads(files["cfg.json"]) == config_of(num_latents=F)
    tensors = safetensors.torch.load(files["sae.safetensors"])
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        "encoder.weight": [F, D], "encoder.bias": [F], "W_dec": [F, D], "b_dec": [D],
    }  # fmt: skip
