"""Parameters and bytes of real models, against what is published of them and against models that are really built."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from kubesae.errors import ConfigError
from kubesae.plan.count import _Counter, count
from kubesae.plan.known import ModelConfig, known_models
from kubesae.plan.run import prediction_bytes
from kubesae.plan.shape import by_kind, total
from planned import shape_of
from tiny_models import ARCHITECTURES, LAYERS, save_model

PUBLISHED = [name for name, known in known_models().items() if "parameters" in known.published]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name):
    published = known_models()[name].published
    whole = shape_of(name).whole
    assert published["parameters_source"]
    assert whole.parameters == pytest.approx(published["parameters"], rel=0.005)
    if "active" in published:  # published in two digits
        assert whole.active == pytest.approx(published["active"], rel=0.02)


def test_the_reference_model_has_the_bytes_that_are_published():
    shape = shape_of("kimi-k2-thinking")
    published = known_models()["kimi-k2-thinking"].published["checkpoint_bytes"]
    assert shape.whole.disk == pytest.approx(published, rel=0.001)
    assert shape.whole.parameters == pytest.approx(1e12, rel=0.03)  # 1T, published in one digit
    assert total(shape.loaded(46)).disk == pytest.approx(444.7e9, rel=0.001)  # research: tensors of layers 0 to 45
    layer = shape.layers[45]
    assert layer.whole.disk == pytest.approx(9.8e9, rel=0.01)
    assert layer.flops(2048) == pytest.approx(1.04e9, rel=0.01)


def test_fp8_blocks_and_prediction_layers_are_the_bytes_of_the_published_index():
    shape = shape_of("deepseek-v3")
    # `total_size` of model.safetensors.index.json of deepseek-ai/DeepSeek-V3
    assert shape.whole.disk + prediction_bytes(shape) == pytest.approx(688_586_727_753, rel=0.001)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gpt2"])
def test_counts_are_those_of_a_model_that_is_built(architecture, tmp_path):
    if architecture == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        sizes = {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "vocab_size": 256, "n_positions": 64}
        GPT2LMHeadModel(GPT2Config(**sizes)).bfloat16().save_pretrained(tmp_path)
    else:
        save_model(tmp_path, architecture)
    config = json.loads((tmp_path / "config.json").read_text())
    shape = count(ModelConfig("tiny", "here", config, str(tmp_path)))
    kind = AutoModel if architecture == "bert" else AutoModelForCausalLM
    model = kind.from_pretrained(tmp_path, dtype=torch.bfloat16)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert shape.whole.parameters == built
    assert shape.depth == LAYERS
    # a file holds tensors and a header; transformers may leave out buffers
    stored = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert shape.whole.disk == pytest.approx(stored, rel=0.2)
    assert shape.whole.disk == 2 * built


def test_each_tensor_has_its_kind():
    kinds = by_kind(shape_of("kimi-k2-thinking").groups)
    assert list(kinds) == ["embeddings", "attention", "mlp", "experts", "shared experts", "router", "norms", "head"]
    dense, sparse = (by_kind(shape_of("kimi-k2-thinking").layers[i].groups) for i in (0, 1))
    assert (set(dense), set(sparse)) == (
        {"attention", "mlp", "norms"},
        {"attention", "experts", "shared experts", "router", "norms"},
    )
    assert sparse["experts"].parameters == 384 * 3 * 7168 * 2048
    assert sparse["experts"].active * 384 == sparse["experts"].parameters * 8
    assert sparse["experts"].packed == sparse["experts"].parameters
    assert sparse["attention"].packed == sparse["shared experts"].packed == dense["mlp"].packed == 0


def test_a_module_an_expert_counts_as_all_experts_in_one_tensor():
    def built(mlp):
        model = nn.Module()
        model.layers = nn.ModuleList([nn.Module()])
        model.layers[0].mlp = mlp
        counter = _Counter(model, SimpleNamespace(num_experts_per_tok=2, num_experts=8), None, 2)
        (groups,) = counter.run("layers", 1)[1]
        assert (counter.experts, counter.active_experts) == (8, 2)
        return groups

    apart, fused = nn.Module(), nn.Module()
    apart.experts = nn.ModuleList([nn.Linear(4, 12, bias=False) for _ in range(8)])
    fused.experts = nn.Module()
    fused.experts.up_proj = nn.Parameter(torch.zeros(8, 12, 4))
    assert built(apart) == built(fused)


@pytest.mark.parametrize(("name", "tied"), [("gpt2", True), ("gemma-2-9b", True), ("qwen3-32b", False)])
def test_tied_weights_count_once(name, tied):
    assert ("head" in by_kind(shape_of(name).groups)) is not tied


def test_attention_windows_and_directions():
    gemma, bert, llama = (shape_of(name).layers for name in ("gemma-2-9b", "bert-base", "llama-3-70b"))
    assert [layer.attention.window for layer in gemma[:2]] == [4096, None]
    assert gemma[0].attention.keys(8192) == pytest.approx((4096 * 4097 / 2 + 4096 * 4096) / 8192)
    assert gemma[1].attention.keys(8192) == pytest.approx(8193 / 2)
    assert bert[0].attention.keys(512) == 512
    assert llama[0].attention.keys(2048) == pytest.approx(2049 / 2)


def test_an_architecture_that_transformers_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="does not know the architecture 'kimi_k9' of some/model"):
        count(ModelConfig("some/model", "here", {"model_type": "kimi_k9", "hidden_size": 8}))


def test_a_config_that_cannot_be_built_is_refused():
    values = {"model_type": "llama", "hidden_size": "wide"}
    with pytest.raises(ConfigError, match="some/model"):
        count(ModelConfig("some/model", "here", values))


def test_every_known_model_says_where_its_shape_is_from():
    for known in known_models().values():
        assert known.source
        assert known.url.startswith("https://")
        assert known.ids
