"""SAELens' formulas, written out here in float64, against what is imported; and what is refused."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.sae.formats import sae_lens
from kubesae.sae.inference import Sae
from random_sae import ARCHITECTURES, random_sae

D, F, K = 6, 20, 3
BATCHTOPK = {"kubesae": {"architecture": "batchtopk", "k": K, "prefixes": None}}


def config_of(architecture="standard", **changes):
    config = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": F,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12"} | changes.pop("metadata", {}),
    }
    if architecture == "topk":
        config |= {"k": K, "rescale_acts_by_decoder_norm": False}
    config |= changes
    return {name: value for name, value in config.items() if value is not ...}


def tensors_of(architecture="standard", *, unit=True):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator)

    tensors = {"W_enc": randn(D, F), "W_dec": randn(F, D), "b_dec": randn(D)}
    tensors["W_dec"] /= tensors["W_dec"].norm(dim=1, keepdim=True) if unit else 1
    if architecture == "gated":
        return tensors | {"b_gate": randn(F), "b_mag": randn(F), "r_mag": randn(F)}
    tensors["b_enc"] = randn(F)
    return tensors | ({"threshold": randn(F)} if architecture == "jumprelu" else {})


def read(config, tensors):
    return sae_lens.read(
        {"cfg.json": json.dumps(config).encode(), "sae_weights.safetensors": safetensors.torch.save(tensors)}, "there"
    )


def rows(count=200):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(5))


def by_formula(config, tensors, x):
    """Features and reconstruction by the formulas of SAELens, float64."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    y = x.double() - t["b_dec"] * config.get("apply_b_dec_to_input", True)
    norm = t["W_dec"].norm(dim=-1)
    if config["architecture"] == "gated":
        gate = y @ t["W_enc"] + t["b_gate"] > 0
        f = gate * (y @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]).relu()
        return f, f @ t["W_dec"] + t["b_dec"]
    z = y @ t["W_enc"] + t["b_enc"]
    if config["architecture"] == "jumprelu":
        f = z.relu() * (z > t["threshold"])
    elif config["architecture"] == "topk":
        rescale = config["rescale_acts_by_decoder_norm"]
        top = (z * norm if rescale else z).topk(config["k"], dim=-1)
        f = torch.zeros_like(z).scatter(-1, top.indices, top.values.relu())
        return f, (f / norm if rescale else f) @ t["W_dec"] + t["b_dec"]
    else:
        f = z.relu()
    return f, f @ t["W_dec"] + t["b_dec"]


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "topk", "topk-rescaled", "jumprelu", "gated"])
def test_the_function_is_that_of_saelens(architecture, unit, subtracts):
    architecture, _, rescaled = architecture.partition("-")
    more = {"rescale_acts_by_decoder_norm": bool(rescaled)} if architecture == "topk" else {}
    config = config_of(architecture, apply_b_dec_to_input=subtracts, metadata=BATCHTOPK, **more)
    tensors = tensors_of(architecture, unit=unit)
    foreign = read(config, tensors)
    expected_f, expected_x_hat = by_formula(config, tensors, rows())
    x_hat, f = Sae(foreign.config, foreign.weights, {}, foreign.threshold_F)(rows())
    norm_F = tensors["W_dec"].norm(dim=1)
    if architecture == "topk":  # kept as it is, or its features are those with the norm already
        norm_F = torch.ones(F)
    torch.testing.assert_close(f.double(), expected_f * norm_F, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_hat.double(), expected_x_hat, rtol=1e-5, atol=1e-5)
    kept = architecture == "topk" and not rescaled and not unit
    assert any("decoder rows have norms from" in note for note in foreign.notes) == kept
    if not kept:
        torch.testing.assert_close(foreign.weights.W_dec_FD.norm(dim=1), torch.ones(F))
    assert bool((f > 0).any())
    assert bool((f == 0).any())


@pytest.mark.parametrize("architecture", ["jumprelu", "gated"])
def test_saes_with_thresholds_of_others_are_of_their_own_architecture(architecture):
    if architecture in ARCHITECTURES:
        assert read(config_of(architecture), tensors_of(architecture)).config.architecture == architecture
    else:
        with pytest.raises(ConfigError, match=f"architecture {architecture}, which this version of kubesae does not"):
            read(config_of(architecture), tensors_of(architecture))


def test_what_is_exactly_at_its_threshold_is_inactive():
    tensors = tensors_of("jumprelu") | {"b_dec": torch.zeros(D), "threshold": torch.full((F,), 0.5)}
    tensors |= {"W_enc": torch.zeros(D, F), "b_enc": torch.full((F,), 0.5)}
    config = config_of("jumprelu", metadata=BATCHTOPK)
    foreign = read(config, tensors)
    f = Sae(foreign.config, foreign.weights, {}, foreign.threshold_F).encode(rows())
    assert not by_formula(config, tensors, rows())[0].any()
    assert not f.any()


def test_what_is_missing_means_what_it_means_there():
    tensors = tensors_of()
    whole = read(config_of(), tensors)
    old = {"d_in": D, "d_sae": F, "dtype": "float32", "hook_name": "blocks.3.hook_resid_post"}
    for config in (config_of(apply_b_dec_to_input=..., normalize_activations=None, reshape_activations=...), old):
        foreign = read(config, tensors)
        assert foreign.config == whole.config
        for left, right in zip(foreign.weights, whole.weights, strict=True):
            assert torch.equal(left, right)
    old |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    assert read(old, tensors).config.model_dump()["k"] == K
    with pytest.raises(ConfigError, match="hook_z"):
        read(old | {"hook_name": "blocks.3.attn.hook_z"}, tensors)
    with pytest.raises(ConfigError, match="activation_fn: 'tanh-relu'"):
        read(old | {"activation_fn": "tanh-relu"}, tensors)
    with pytest.raises(ConfigError, match="architecture: None"):  # only old files may leave it out
        read(config_of(...), tensors)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalize_activations": "layer_norm"}, "normalize_activations: 'layer_norm'"),
        ({"normalize_activations": "constant_norm_rescale"}, "normalize_activations"),
        ({"normalize_activations": "expected_average_only_in"}, "numbers that are not in these files"),
        ({"normalize_activations": "covariance_whitening"}, "normalize_activations"),
        ({"normalize_activations": True}, "normalize_activations: True"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
        ({"architecture": "transcoder"}, "architecture: 'transcoder', which kubesae does not have"),
        ({"architecture": "abstopk"}, "abstopk"),
        ({"architecture": ["topk"]}, "does not have"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"architecture": "topk", "k": None}, "k is None, not a number from 1 to 20"),
        ({"architecture": "topk", "k": F + 1}, "k is 21"),
        ({"architecture": "topk", "k": True}, "k is True"),
        ({"d_in": "6"}, "d_in is '6'"),
        ({"d_sae": 0}, "d_sae is 0"),
    ],
)
def test_what_kubesae_has_no_form_for_is_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        read(config_of() | changes, tensors_of())


def test_other_tensors_than_there_should_be_are_refused():
    for name in tensors_of():
        with pytest.raises(DamagedError, match=f"a tensor {name} with shape .* there are only"):
            read(config_of(), {key: tensor for key, tensor in tensors_of().items() if key != name})
        with pytest.raises(DamagedError, match=f"a tensor {name} with shape .* it is torch.float32"):
            read(config_of(), tensors_of() | {name: torch.zeros(3, 3)})
        broken = tensors_of()[name].clone()
        broken.view(-1)[1] = torch.nan
        with pytest.raises(DamagedError, match=f"{name} holds NaN"):
            read(config_of(), tensors_of() | {name: broken})
    with pytest.raises(DamagedError, match="W_enc with shape"):
        read(config_of(d_sae=F + 1), tensors_of())
    with pytest.raises(ConfigError, match="holds W_skip too"):
        read(config_of(), tensors_of() | {"W_skip": torch.zeros(D, D)})
    with pytest.raises(ConfigError, match="scaling_factor"):
        read(config_of(), tensors_of() | {"scaling_factor": torch.full((F,), 2.0)})
    assert read(config_of(), tensors_of() | {"scaling_factor": torch.ones(F)}).kind == "standard"
    rescaled = config_of("topk", rescale_acts_by_decoder_norm=True)
    with pytest.raises(ConfigError, match="divides by their norm and gives NaN"):
        read(rescaled, tensors_of("topk") | {"W_dec": torch.zeros(F, D)})
    with pytest.raises(DamagedError, match="not a safetensors file"):
        sae_lens.read({"cfg.json": json.dumps(config_of()).encode(), "sae_weights.safetensors": b"x" * 99}, "there")
    with pytest.raises(DamagedError, match=r"there/cfg.json is not JSON"):
        sae_lens.read({"cfg.json": b"{", "sae_weights.safetensors": b""}, "there")


def test_the_dtype_of_the_config_counts_as_it_does_there():
    """SAELens rounds the weights to it when it loads them."""
    rounded = read(config_of(dtype="bfloat16"), tensors_of())
    assert torch.equal(rounded.weights.b_dec_D, tensors_of()["b_dec"].bfloat16().float())
    assert "Its weights are bfloat16; here they are float32" in rounded.notes[0]
    assert read(config_of(), {n: t.double() for n, t in tensors_of().items()}).notes == ()


def test_it_says_where_in_the_model_it_was_trained():
    metadata = {"hook_name": "blocks.3.hook_resid_post", "model_name": "gpt2"}
    note = read(config_of(metadata=metadata), tensors_of()).notes[0]
    assert note.startswith("SAELens says that it is of blocks.3.hook_resid_post of gpt2")


def test_what_is_written():
    files = sae_lens.write(random_sae("topk", D, F, K))
    config = json.loads(files["cfg.json"])
    assert config == config_of(
        "topk",
        device="cpu",
        metadata={
            "sae_lens_training_version": None,
            "model_name": "some/model",
            "hook_name": "blocks.4.hook_resid_post",
            "kubesae": {"architecture": "topk", "k": K, "prefixes": None},
        },
    )
    tensors = safetensors.torch.load(files["sae_weights.safetensors"])
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        "W_enc": [D, F], "b_enc": [F], "W_dec": [F, D], "b_dec": [D],
    }  # fmt: skip
    with_threshold = sae_lens.write(random_sae("batchtopk", D, F, K))
    assert json.loads(with_threshold["cfg.json"])["architecture"] == "jumprelu"
    assert "threshold" in safetensors.torch.load(with_threshold["sae_weights.safetensors"])
