"""Files of an SAE: round trip, the pointer to the best, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch

from kubesae.errors import ConfigError, DamagedError
from kubesae.sae import Normaliser, SaeConfig, Weights, load_sae, save_sae
from kubesae.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

D, F = 5, 9
RELU = SaeConfig(architecture="relu", d_model=D, d_sae=F)


def trained() -> tuple[Weights, Normaliser]:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return Weights(randn(F, D), randn(F), randn(F, D), randn(D)), Normaliser(randn(D) * 9, 0.25)


def acts() -> torch.Tensor:
    return torch.randn(2, 3, D, generator=torch.Generator().manual_seed(1)) * 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_sae(open_store(str(tmp_path)), "checkpoints/step-00000010/", RELU, *trained(), {"metrics": {"fvu": 0.1}})
    return tmp_path / "checkpoints" / "step-00000010"


def test_round_trip_in_raw_units(folder: Path) -> None:
    weights, normaliser = trained()
    sae = load_sae(folder)
    x = acts()
    normalised = normaliser.apply(x) - weights.b_dec_D
    f = (normalised @ weights.W_enc_FD.T + weights.b_enc_F).relu()
    expected = (f @ weights.W_dec_FD + weights.b_dec_D) / normaliser.scale + normaliser.mean_D
    reconstruction, features = sae(x)
    assert features.shape == (2, 3, F)
    torch.testing.assert_close(reconstruction, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.encode(x), features)
    torch.testing.assert_close(sae.decode(features), reconstruction, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.encode(x.bfloat16()), sae.encode(x.bfloat16().float()))
    assert sae.metadata["metrics"] == {"fvu": 0.1}
    assert sae.config == RELU


def test_files_are_plain(folder: Path) -> None:
    """Anybody can use them: four tensors and the equation in the module's docstring."""
    tensors = safetensors.torch.load_file(folder / "sae.safetensors")
    assert {name: list(t.shape) for name, t in tensors.items()} == {
        "W_enc": [F, D], "b_enc": [F], "W_dec": [F, D], "b_dec": [D], "input_mean": [D],
    }  # fmt: skip
    x = acts()
    f = torch.relu((x - tensors["b_dec"]) @ tensors["W_enc"].T + tensors["b_enc"])
    torch.testing.assert_close(f, load_sae(folder).encode(x))
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["config"] == {"architecture": "relu", "d_model": D, "d_sae": F, "k": None, "prefixes": None}
    assert metadata["normalisation"]["scale"] == 0.25


def test_codes_are_the_positive_entries(folder: Path) -> None:
    sae = load_sae(folder)
    code = sae.codes(acts().reshape(-1, D))
    assert (code.values_N > 0).all()
    torch.testing.assert_close(code.dense(F), sae.encode(acts()).reshape(-1, F))


def test_topk_has_at_most_k_active(tmp_path: Path) -> None:
    config = SaeConfig(architecture="topk", d_model=D, d_sae=F, k=2)
    save_sae(open_store(str(tmp_path)), "one/", config, *trained(), {})
    features = load_sae(tmp_path / "one").encode(acts())
    assert ((features > 0).sum(-1) <= 2).all()


@pytest.mark.parametrize("architecture", ["jumprelu", "gated"])
def test_trained_thresholds_round_trip_in_raw_units(tmp_path: Path, architecture: str) -> None:
    """The files hold the four tensors and a threshold, whatever training had besides; the SAE does what it did."""
    plain, normaliser = trained()
    generator = torch.Generator().manual_seed(5)
    first, second = (0.3 * torch.randn(F, generator=generator) for _ in range(2))
    x = acts()
    z = (normaliser.apply(x) - plain.b_dec_D) @ plain.W_enc_FD.T
    if architecture == "jumprelu":
        weights = Weights(*plain, log_threshold_F=first)
        f = torch.where(z + plain.b_enc_F > first.exp(), z + plain.b_enc_F, 0.0)
    else:
        weights = Weights(*plain, r_mag_F=first, b_gate_F=second)
        f = (z * first.exp() + plain.b_enc_F).relu() * (z + second > 0)
    config = SaeConfig(architecture=architecture, d_model=D, d_sae=F)
    save_sae(open_store(str(tmp_path)), "one/", config, weights, normaliser, {})
    tensors = safetensors.torch.load_file(tmp_path / "one" / "sae.safetensors")
    assert tensors.keys() == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold", "input_mean"}
    reconstruction, features = load_sae(tmp_path / "one")(x)
    assert torch.equal(features > 0, f > 0)
    torch.testing.assert_close(features, f * plain.W_dec_FD.norm(dim=1) / normaliser.scale, rtol=1e-4, atol=1e-4)
    expected = (f @ plain.W_dec_FD + plain.b_dec_D) / normaliser.scale + normaliser.mean_D
    torch.testing.assert_close(reconstruction, expected, rtol=1e-4, atol=1e-4)


def test_pointer_leads_to_the_best(folder: Path) -> None:
    sae_folder = folder.parent.parent
    (sae_folder / "best.json").write_text(json.dumps({"checkpoint": "checkpoints/step-00000010"}))
    assert torch.equal(load_sae(f"file://{sae_folder}").weights.W_enc_FD, load_sae(folder).weights.W_enc_FD)


def test_a_folder_without_an_sae_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no SAE at"):
        load_sae(tmp_path)


def test_a_pointer_to_nothing_is_damage(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": "checkpoints/step-00000099"}))
    with pytest.raises(DamagedError, match="step-00000099"):
        load_sae(tmp_path)


def test_other_bytes_than_the_metadata_says_are_refused(folder: Path) -> None:
    file = folder / "sae.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedError, match="SHA-256"):
        load_sae(folder)


def test_wrong_shapes_are_refused(folder: Path) -> None:
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["config"]["d_sae"] = F + 1
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(DamagedError, match="W_enc"):
        load_sae(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"format": 2}))
    with pytest.raises(ConfigError, match="format 2"):
        load_sae(folder)
