"""Activations equal the untruncated model's hidden states, bit for bit, for the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from kubesae.errors import ConfigError
from kubesae.experiment import Experiment
from kubesae.model import resolve_model
from kubesae.model.products import quicken
from kubesae.model.resident import ResidentEngine
from kubesae.model.smollm2 import demo_model
from kubesae.model.truncate import find_layers
from tiny_models import ARCHITECTURES, LAYERS, VOCABULARY, save_model


def experiment(model: object, layers: tuple[int, ...], context: int = 16) -> Experiment:
    return Experiment(
        data="unused", model=str(model), layers=layers, corpora=({"name": "a", "source": "b"},), context=context
    )


def engine_of(folder: object, layers: tuple[int, ...], dtype: str = "bfloat16") -> ResidentEngine:
    return ResidentEngine.load(resolve_model(experiment(folder, layers)), layers, dtype, "cpu")


def whole_model(folder: object, architecture: str) -> torch.nn.Module:
    loader = AutoModel if architecture == "bert" else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.bfloat16).eval()
    quicken(model, torch.device("cpu"), torch.bfloat16)  # as ours are, on CPUs that need it
    return model


def ids(batch: int, length: int, vocabulary: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary, (batch, length)).astype(np.uint32)


def reference(
    model: torch.nn.Module, ids_BT: np.ndarray, layers: tuple[int, ...], depth: int
) -> dict[int, torch.Tensor]:
    """hidden_states[layer + 1]; of the last layer its block's own output, since that entry is behind the final norm."""
    captured = {}
    last = find_layers(model, depth)[-1]
    last.register_forward_hook(lambda _m, _a, out: captured.update(x=out[0] if isinstance(out, tuple) else out))
    with torch.inference_mode():
        states = model(input_ids=torch.from_numpy(ids_BT.astype(np.int64)), output_hidden_states=True).hidden_states
    return {layer: captured["x"] if layer == depth - 1 else states[layer + 1] for layer in layers}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layers", [(0,), (1, 2), (0, LAYERS - 1)])
def test_activations_equal_the_whole_models(tmp_path, architecture, layers):
    save_model(tmp_path, architecture)
    ids_BT = ids(3, 16)
    expected = reference(whole_model(tmp_path, architecture), ids_BT, layers, LAYERS)
    found = engine_of(tmp_path, layers).forward(ids_BT)
    assert found.keys() == set(layers)
    for layer in layers:
        assert expected[layer].float().std() > 0
        assert torch.equal(found[layer], expected[layer])


def test_activations_equal_the_whole_models_for_smollm2():
    folder, layers, depth = demo_model(), (0, 12, 29), 30
    ids_BT = ids(2, 32, 49_152)
    expected = reference(whole_model(folder, "llama"), ids_BT, layers, depth)
    found = engine_of(folder, layers).forward(ids_BT)
    for layer in layers:
        assert torch.equal(found[layer], expected[layer])


def test_no_layer_beyond_the_deepest_is_built(tmp_path):
    save_model(tmp_path, "llama")
    engine = engine_of(tmp_path, (1,))
    names = {name for name, _ in engine._model.named_parameters()}
    assert any(name.startswith("layers.1.") for name in names)
    assert not any(name.startswith(("layers.2.", "lm_head")) for name in names)


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_documents_attend_to_themselves_alone(tmp_path, architecture):
    save_model(tmp_path, architecture)
    engine = engine_of(tmp_path, (2,), "float32")
    ids_BT = ids(1, 12)
    documents_BT = np.array([[0] + [1] * 5 + [2] * 6])
    found = engine.forward(ids_BT, documents_BT)[2]
    changed = ids_BT.copy()
    changed[0, 1:6] = (changed[0, 1:6] + 1) % VOCABULARY
    other = engine.forward(changed, documents_BT)[2]
    torch.testing.assert_close(found[0, 6:], other[0, 6:])
    assert not torch.allclose(found[0, 1:6], other[0, 1:6])
    across = engine.forward(ids_BT)[2]
    assert not torch.allclose(found[0, 6:], across[0, 6:])


def test_a_layer_out_of_range_is_refused(tmp_path):
    save_model(tmp_path, "llama")
    with pytest.raises(ConfigError, match=r"Layer 4 is out of range: .* has layers 0 to 3"):
        resolve_model(experiment(tmp_path, (4,)))


def test_a_context_longer_than_the_model_takes_is_refused(tmp_path):
    save_model(tmp_path, "llama")
    with pytest.raises(ConfigError, match="takes at most 128 tokens"):
        resolve_model(experiment(tmp_path, (0,), context=129))


def test_a_model_that_is_nowhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="Cannot load the config of model"):
        resolve_model(experiment(tmp_path / "nothing", (0,)))


def test_a_folders_revision_is_its_files_alone(tmp_path):
    for name in ("a", "b"):
        save_model(tmp_path / name, "llama")
    save_model(tmp_path / "c", "llama", seed=1)
    a, b, c = (resolve_model(experiment(tmp_path / name, (0,))) for name in "abc")
    assert a.revision == b.revision != c.revision
    assert (a.name, b.name) == ("a", "b")
