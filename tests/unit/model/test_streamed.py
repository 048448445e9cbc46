"""The streamed engine gives what the resident one gives, bit for bit, with one layer's weights at a time."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine_outputs import CAPTURED, assert_equal, outputs, some_batches, source_of
from kubesae.errors import ConfigError
from kubesae.model.resident import ResidentEngine
from kubesae.model.streamed import StreamedEngine
from tiny_models import ARCHITECTURES, LAYERS, save_model

if TYPE_CHECKING:
    from pathlib import Path


def loaded(engine: StreamedEngine) -> list[str]:
    """Names of the layers' parameters that hold numbers."""
    return [
        name
        for lane in engine._lanes
        for name, parameter in lane.skeleton.layers.named_parameters()
        if not parameter.is_meta
    ]


@pytest.mark.parametrize(("places", "weights"), [("cpu", "cached"), ("cpu", "direct"), ("cpu,cpu", "direct")])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_activations_are_the_resident_engines(tmp_path: Path, architecture: str, places: str, weights: str) -> None:
    save_model(tmp_path, architecture)
    source = source_of(tmp_path)
    expected = outputs(ResidentEngine.load(source, CAPTURED, "bfloat16", "cpu"), some_batches())
    engine = StreamedEngine.load(source, CAPTURED, "bfloat16", places, weights)
    for _ in range(2):  # a second block begins at the first layer again
        assert_equal(outputs(engine, some_batches()), expected)
        assert loaded(engine) == []


@pytest.mark.parametrize("architecture", ["llama", "deepseek-v3", "bert"])
def test_documents_are_kept_apart_as_there(tmp_path: Path, architecture: str) -> None:
    save_model(tmp_path, architecture)
    source, batches = source_of(tmp_path), some_batches(documents=True)
    expected = outputs(ResidentEngine.load(source, CAPTURED, "float32", "cpu"), batches)
    assert_equal(outputs(StreamedEngine.load(source, CAPTURED, "float32", "cpu"), batches), expected)


def test_all_layers_come_for_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices, every layer captured: each layer is read once, in order, the next while one computes."""
    save_model(tmp_path, "llama")
    layers = tuple(range(LAYERS))
    source = source_of(tmp_path, layers)
    engine = StreamedEngine.load(source, layers, "bfloat16", "cpu,cpu")
    read: list[int] = []
    original = engine._reader.read
    monkeypatch.setattr(engine._reader, "read", lambda layer: (read.append(layer), original(layer))[1])
    found = {}
    for number, layer, output in engine.run(some_batches()):
        assert read == [*layers, 0][: layer + 2][: len(read)]
        assert {name.split(".")[0] for name in loaded(engine)} <= {str(layer), str(layer + 1)}
        found[number, layer] = output
    assert engine._ahead is not None, "the next block's first layer"
    assert_equal(found, outputs(ResidentEngine.load(source, layers, "bfloat16", "cpu"), some_batches()))


def test_no_byte_of_a_later_layer_is_read(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    source = source_of(tmp_path)
    expected = outputs(ResidentEngine.load(source, CAPTURED, "bfloat16", "cpu"), some_batches())
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if f"layers.{LAYERS - 1}." in name or "lm_head" in name or name == "model.norm.weight":
            first, last = (start + offset for offset in entry["data_offsets"])
            data[first:last] = b"\xff" * (last - first)  # not a number
    (tmp_path / "model.safetensors").write_bytes(data)
    assert_equal(outputs(StreamedEngine.load(source, CAPTURED, "bfloat16", "cpu"), some_batches()), expected)


def test_an_error_amid_a_block_leaves_the_engine_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As memory that runs out does; what is done again with smaller batches is not what was stopped."""
    save_model(tmp_path, "llama")
    engine = StreamedEngine.load(source_of(tmp_path), CAPTURED, "bfloat16", "cpu")
    expected = outputs(engine, some_batches())
    module, calls = engine._lanes[0].skeleton.layers[1].mlp, []
    original = module.forward

    def fail(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            outputs(engine, some_batches())
    assert loaded(engine) == []
    assert engine._lanes[0]._walks == {}
    assert_equal(outputs(engine, some_batches()), expected)


def test_a_block_that_nobody_goes_on_with_is_given_up(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    engine = StreamedEngine.load(source_of(tmp_path), CAPTURED, "bfloat16", "cpu")
    running = engine.run(some_batches())
    next(running)
    running.close()
    del running
    gc.collect()
    assert loaded(engine) == []
    assert engine._lanes[0]._walks == {}


def test_a_checkpoint_in_several_files_is_read_by_its_index(tmp_path: Path) -> None:
    save_model(tmp_path, "mixtral")
    expected = outputs(ResidentEngine.load(source_of(tmp_path), CAPTURED, "bfloat16", "cpu"), some_batches())
    tensors = load_file(tmp_path / "model.safetensors")
    places = {name: f"model-{number % 3}.safetensors" for number, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, tmp_path / file)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert_equal(
        outputs(StreamedEngine.load(source_of(tmp_path), CAPTURED, "bfloat16", "cpu"), some_batches()), expected
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), r"of layer 1 lack 'mlp.up_proj.weight'"),
        (lambda tensors: tensors.pop("model.embed_tokens.weight"), "outside the layers lack 'embed_tokens.weight'"),
        (
            lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(3, 3)}),
            "of layer 1 do not fit the model's config",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "layers.1." in name],
            "has no weights of layer 1",
        ),
    ],
)
def test_weights_that_are_not_there_are_named(tmp_path: Path, change: Any, message: str) -> None:
    save_model(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=message):
        outputs(StreamedEngine.load(source_of(tmp_path), CAPTURED, "bfloat16", "cpu"), some_batches())


def test_weights_in_another_format_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    source = source_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no safetensors weights"):
        StreamedEngine.load(source, CAPTURED, "bfloat16", "cpu")
