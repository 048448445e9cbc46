"""The formulas of dictionary_learning, written out here in float64, against what is imported; and what is refused."""

from __future__ import annotations

import io
import json

import pytest
import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.sae.formats import dictionary_learning
from kubesae.sae.inference import Sae
from random_sae import ARCHITECTURES, assert_same_function, random_sae

D, F, K = 6, 20, 3
GROUPS = [2, 8, 10]
HINT = {"kubesae": {"architecture": "batchtopk", "k": K, "prefixes": None}}
LINEAR = {"encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F)}
PLAIN = {"W_enc": (D, F), "b_enc": (F,), "W_dec": (F, D), "b_dec": (D,)}
SHAPES = {
    "AutoEncoder": LINEAR | {"bias": (D,)},
    "AutoEncoderNew": LINEAR | {"decoder.bias": (D,)},
    "AutoEncoderTopK": LINEAR | {"b_dec": (D,)},
    "BatchTopKSAE": LINEAR | {"b_dec": (D,)},
    "MatryoshkaBatchTopKSAE": PLAIN,
    "JumpReluAutoEncoder": PLAIN | {"threshold": (F,)},
    "GatedAutoEncoder": {"encoder.weight": (F, D), "decoder.weight": (D, F), "decoder_bias": (D,)}
    | {"r_mag": (F,), "gate_bias": (F,), "mag_bias": (F,)},
}
OF_K = {"AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"}


def tensors_of(kind, threshold=0.5):
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(*shape, generator=generator) for name, shape in SHAPES[kind].items()}
    if kind in OF_K:
        tensors |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(threshold)}
    if kind == "MatryoshkaBatchTopKSAE":
        tensors["group_sizes"] = torch.tensor(GROUPS)
    return tensors


def config_of(kind, **changes):
    return {"trainer": {"dict_class": kind} | ({"k": K} if kind in OF_K else {}) | changes}


def read(config, tensors):
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return dictionary_learning.read({"config.json": json.dumps(config).encode(), "ae.pt": buffer.getvalue()}, "there")


def rows():
    return torch.randn(200, D, generator=torch.Generator().manual_seed(5))


def by_formula(kind, tensors, x):
    """Features, reconstruction and norms of the decoder's rows by the formulas of dictionary_learning, float64."""
    t, x = {name: tensor.double() for name, tensor in tensors.items()}, x.double()
    W_dec = t["W_dec"] if "W_dec" in t else t["decoder.weight"].T
    b_dec = next(t[name] for name in ("bias", "decoder.bias", "decoder_bias", "b_dec") if name in t)
    W_enc = t["W_enc"] if "W_enc" in t else t["encoder.weight"].T
    e = (x if kind in {"AutoEncoderNew", "JumpReluAutoEncoder"} else x - b_dec) @ W_enc
    if kind == "GatedAutoEncoder":
        f = (e + t["gate_bias"] > 0) * (t["r_mag"].exp() * e + t["mag_bias"]).relu()
        return f, f @ W_dec + b_dec, W_dec.norm(dim=1)
    z = e + (t["b_enc"] if "b_enc" in t else t["encoder.bias"])
    f = z.relu()
    if kind == "AutoEncoderTopK":
        top = f.topk(K, dim=-1)
        f = torch.zeros_like(f).scatter(-1, top.indices, top.values)
        return f, f @ W_dec + b_dec, torch.ones(F)
    if kind == "JumpReluAutoEncoder":
        f = (z * (z > t["threshold"])).relu()
    elif "threshold" in t:
        f = f * (f > t["threshold"])
    return f, f @ W_dec + b_dec, W_dec.norm(dim=1)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("threshold", [0.5, -1.0])
def test_the_function_is_that_of_dictionary_learning(kind, threshold):
    tensors = tensors_of(kind, threshold)
    foreign = read(config_of(kind) | HINT, tensors)
    assert foreign.kind == kind
    f, x_hat, norm_F = by_formula(kind, tensors, rows())
    our_x_hat, our_f = Sae(foreign.config, foreign.weights, {}, foreign.threshold_F)(rows())
    torch.testing.assert_close(our_f.double(), f * norm_F, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_x_hat.double(), x_hat, rtol=1e-5, atol=1e-5)
    unfinished = threshold < 0 and kind in {"BatchTopKSAE", "MatryoshkaBatchTopKSAE"}
    assert any("training ended before it was found" in note for note in foreign.notes) == unfinished
    assert foreign.threshold_F is None or bool((foreign.threshold_F >= 0).all())


@pytest.mark.parametrize(("kind", "architecture"), [("JumpReluAutoEncoder", "jumprelu"), ("GatedAutoEncoder", "gated")])
def test_saes_with_thresholds_of_others_are_of_their_own_architecture(kind, architecture):
    if architecture in ARCHITECTURES:
        assert read(config_of(kind), tensors_of(kind)).config.architecture == architecture
    else:
        with pytest.raises(ConfigError, match=f"architecture {architecture}, which this version of kubesae does not"):
            read(config_of(kind), tensors_of(kind))


def test_the_config_is_whole():
    config = read(config_of("MatryoshkaBatchTopKSAE"), tensors_of("MatryoshkaBatchTopKSAE")).config
    assert config.model_dump() == {
        "architecture": "matryoshka", "d_model": D, "d_sae": F, "k": K, "prefixes": (2, 10, 20),
    }  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_other_tensors_than_there_should_be_are_refused(kind):
    whole = tensors_of(kind)
    for name in whole.keys() - {"k"} - ({"threshold"} if kind == "AutoEncoderTopK" else set()):
        with pytest.raises(DamagedError, match=r"there should be a tensor .*, but there are only"):
            read(config_of(kind), {key: tensor for key, tensor in whole.items() if key != name})
        with pytest.raises((DamagedError, ConfigError), match=r"there should be|group_sizes are"):
            read(config_of(kind), whole | {name: torch.zeros(2, 2, 2)})
    with pytest.raises(ConfigError, match="holds extra too"):
        read(config_of(kind) | HINT, whole | {"extra": torch.zeros(2)})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "dict_class: None"),
        ({"trainer": []}, "dict_class: None"),
        (config_of("IdentityDict"), "dict_class: 'IdentityDict', which kubesae does not have"),
        (config_of("CrossCoder"), "Choose another SAE"),
        ({"trainer": {"dict_class": ["AutoEncoder"]}}, "does not have"),
        ({"trainer": {"dict_class": "BatchTopKSAE"}}, "k is None"),
        (config_of("BatchTopKSAE", k=F + 1), "k is 21, not a number from 1 to 20"),
    ],
)
def test_what_kubesae_has_no_form_for_is_refused(config, reason):
    with pytest.raises(ConfigError, match=reason):
        read(config, tensors_of("BatchTopKSAE"))


def test_files_that_contradict_each_other_are_refused():
    with pytest.raises(DamagedError, match="says k: 4, and the weights beside it 3"):
        read(config_of("BatchTopKSAE", k=4), tensors_of("BatchTopKSAE"))
    tensors = tensors_of("MatryoshkaBatchTopKSAE") | {"group_sizes": torch.tensor([2, 8])}
    with pytest.raises(DamagedError, match=r"group_sizes are \[2, 8\]"):
        read(config_of("MatryoshkaBatchTopKSAE"), tensors)


@pytest.mark.parametrize(
    ("architecture", "same", "kind"),
    [
        ("relu", False, "AutoEncoder"),
        ("topk", False, "AutoEncoderTopK"),
        ("batchtopk", True, "BatchTopKSAE"),
        ("matryoshka", True, "MatryoshkaBatchTopKSAE"),
        ("batchtopk", False, "JumpReluAutoEncoder"),
        ("matryoshka", False, "JumpReluAutoEncoder"),
    ],
)
def test_what_is_written(architecture, same, kind):
    sae = random_sae(architecture, D, F, K, same=same)
    files = dictionary_learning.write(sae)
    assert json.loads(files["config.json"])["trainer"] == {
        "dict_class": kind, "activation_dim": D, "dict_size": F, "k": sae.config.k, "layer": 4, "lm_name": "some/model",
    }  # fmt: skip
    tensors = torch.load(io.BytesIO(files["ae.pt"]), weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors_of(kind).items()
    } | ({"group_sizes": (2,)} if kind == "MatryoshkaBatchTopKSAE" else {})
    f, x_hat, _ = by_formula(kind, tensors, rows())
    our_x_hat, our_f = sae(rows())
    torch.testing.assert_close(our_f.double(), f, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_x_hat.double(), x_hat, rtol=1e-5, atol=1e-5)


def test_thresholds_that_differ_by_rounding_are_one():
    sae = random_sae("batchtopk", D, F, K, same=True)
    sae.threshold_F *= 1 + 1e-7 * torch.arange(F).remainder(3)
    assert len(sae.threshold_F.unique()) > 1
    assert dictionary_learning.dict_class(sae) == "BatchTopKSAE"
    foreign = dictionary_learning.read(dictionary_learning.write(sae), "there")
    assert_same_function(sae, Sae(foreign.config, foreign.weights, {}, foreign.threshold_F))


def test_an_autoencoder_with_a_row_of_zeros_is_refused():
    sae = random_sae("relu", D, F)
    sae.weights.W_dec_FD[3] = 0
    assert "decoder row of zeros" in dictionary_learning.FORMAT.refusal(sae)
    assert dictionary_learning.FORMAT.refusal(random_sae("relu", D, F)) is None
