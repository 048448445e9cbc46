"""The final norm and output head, loaded alone, against the whole model: equal logits, and no other tensor is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine_outputs import source_of
from kubesae.errors import ConfigError
from kubesae.fetch import fetch, find_source
from kubesae.fetch.truncated import TruncatedSource
from kubesae.model import head
from kubesae.model.head import HEAD, load_head
from quantised_models import save_quantised
from tiny_models import LAYERS, VOCABULARY, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

D_MODEL = 32
TENSORS = {
    "llama": {"model.norm.weight", "lm_head.weight"},
    "gemma": {"model.norm.weight", "model.embed_tokens.weight"},
    "gpt2": {"transformer.ln_f.weight", "transformer.ln_f.bias", "transformer.wte.weight"},
    "deepseek-v3": {"model.norm.weight", "lm_head.weight"},
}
EMBEDDINGS = {"gemma", "gpt2"}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of all tensors that are read."""
    names: list[str] = []
    original = head.safe_open

    class Recorded:
        def __init__(self, *arguments: Any) -> None:
            self._opened = original(*arguments)

        def __enter__(self) -> Any:
            self._file = self._opened.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self._opened.__exit__(*error)

        def keys(self) -> Any:
            return self._file.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            names.append(name)
            return self._file.get_tensor(name)

    monkeypatch.setattr(head, "safe_open", Recorded)
    return names


def save_trained(folder: Path, architecture: str) -> None:
    """Save a model whose final norm is not the identity that it begins as."""
    save_model(folder, architecture)
    tensors = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name in TENSORS[architecture]:
        if tensors[name].ndim == 1:
            tensors[name] = torch.randn(D_MODEL, generator=generator).bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def directions(d_model: int = D_MODEL) -> torch.Tensor:
    return torch.randn(7, d_model, generator=torch.Generator().manual_seed(2))


def of_whole_model(folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what the whole model's own forward makes of residual streams after its last layer, before a cap."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if getattr(model.config, "final_logit_softcapping", None):
        model.config.final_logit_softcapping = None
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == LAYERS)

    def logits(x_BD: torch.Tensor) -> torch.Tensor:
        def replace(_module: Any, _inputs: Any, output: Any) -> Any:
            return (x_BD[None], *output[1:]) if isinstance(output, tuple) else x_BD[None]

        handle = layers[-1].register_forward_hook(replace)
        with torch.inference_mode():
            found = model(input_ids=torch.zeros(1, len(x_BD), dtype=torch.int64)).logits[0]
        handle.remove()
        return found

    return logits


@pytest.mark.parametrize("architecture", TENSORS)
def test_it_gives_the_logits_of_the_whole_model_and_reads_nothing_else(
    tmp_path: Path, read: list[str], architecture: str
) -> None:
    save_trained(tmp_path, architecture)
    found = load_head(source_of(tmp_path))
    assert set(read) == TENSORS[architecture]
    assert found.vocab_size == VOCABULARY
    whole, d_BD = of_whole_model(tmp_path), directions()
    torch.testing.assert_close(found.logits(d_BD), whole(d_BD), rtol=1e-5, atol=1e-5)
    expected_BV = whole(d_BD) - whole(torch.zeros(1, D_MODEL))
    torch.testing.assert_close(found.effect(d_BD), expected_BV, rtol=1e-5, atol=1e-5)
    assert found.effect(torch.zeros(1, D_MODEL)).abs().max() == 0


@pytest.mark.parametrize("architecture", ["llama", "deepseek-v3"])
def test_the_length_of_a_direction_does_not_matter_to_an_rms_norm(tmp_path: Path, architecture: str) -> None:
    save_trained(tmp_path, architecture)
    found, d_BD = load_head(source_of(tmp_path)), directions()
    torch.testing.assert_close(found.effect(100 * d_BD), found.effect(d_BD), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", TENSORS)
def test_a_truncated_model_has_it_where_it_was_kept(tmp_path: Path, read: list[str], architecture: str) -> None:
    whole = tmp_path / "whole"
    save_trained(whole, architecture)
    expected = load_head(source_of(whole)).effect(directions())
    for kept in (True, False):
        target, small = tmp_path / f"cut-{kept}", tmp_path / f"small-{kept}"
        small.mkdir()
        fetch(TruncatedSource(find_source(str(whole), None), LAYERS - 2, kept, small), str(target), lambda _: None)
        assert (target / HEAD).exists() == kept
        read.clear()
        if kept or architecture in EMBEDDINGS:  # an embedding is always there
            assert torch.equal(load_head(source_of(target)).effect(directions()), expected)
            assert set(read) == TENSORS[architecture]
        else:
            with pytest.raises(ConfigError, match=r"lack its lm_head\.weight: `kubesae truncate --with-head`"):
                load_head(source_of(target))


def test_a_quantised_checkpoint_keeps_its_head_as_it_is(tmp_path: Path, read: list[str]) -> None:
    save_quantised(tmp_path, "packed")
    found = load_head(source_of(tmp_path / "quantised"))
    assert set(read) == TENSORS["deepseek-v3"]
    whole = load_head(source_of(tmp_path / "whole"))
    d_BD = directions(found.norm.weight.shape[0])
    torch.testing.assert_close(found.effect(d_BD), whole.effect(d_BD))


def test_an_encoder_has_none(tmp_path: Path) -> None:
    save_model(tmp_path, "bert")
    with pytest.raises(ConfigError, match="has no output head: it is a BertModel, which predicts no next token"):
        load_head(source_of(tmp_path))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].contiguous()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lm_head.weight of .* is torch.bfloat16 \[255, 32\], where floats"):
        load_head(source_of(tmp_path))


def test_a_hub_model_that_is_not_on_this_machine_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    save_model(tmp_path, "llama")
    source = source_of(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    object.__setattr__(source, "path", "some/model")
    object.__setattr__(source, "name", "some/model")
    object.__setattr__(source, "revision", "1" * 40)
    with pytest.raises(ConfigError, match="The files of some/model are not on this machine"):
        load_head(source)
