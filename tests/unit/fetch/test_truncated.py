"""A truncated model loads as any other, gives the same activations, and of the whole one no other byte was read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

from engine_outputs import CAPTURED, assert_equal, outputs, some_batches, source_of
from kubesae.cli.main import _run
from kubesae.errors import ConfigError
from kubesae.fetch import fetch, find_source
from kubesae.fetch.truncated import CONFIG, HEAD, TruncatedSource, truncated
from kubesae.model.resident import ResidentEngine
from kubesae.model.streamed import StreamedEngine
from kubesae.model.weight_files import INDEX
from kubesae.store import open_store
from quantised_models import save_quantised
from tiny_models import ARCHITECTURES, LAYERS, save_model

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST = CAPTURED[-1]


def shard(folder: Path, files: int = 3) -> None:
    """Spread a saved model over several files, its tensors in turn."""
    tensors = load_file(folder / "model.safetensors")
    places = {name: f"model-0000{number % files + 1}-of-0000{files}.safetensors" for number, name in enumerate(tensors)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": places}))


def cut(origin: object, target: object, folder: Path, *, deepest: int = DEEPEST, with_head: bool = False) -> list[str]:
    lines: list[str] = []
    small = folder / "small"
    small.mkdir(exist_ok=True)
    fetch(TruncatedSource(find_source(str(origin), None), deepest, with_head, small), str(target), lines.append)
    return lines


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_loads_in_transformers_and_gives_the_same(tmp_path: Path, architecture: str, sharded: bool) -> None:  # noqa: FBT001 - a parameter
    whole, target = tmp_path / "whole", tmp_path / "cut"
    save_model(whole, architecture)
    expected = outputs(ResidentEngine.load(source_of(whole), CAPTURED, "bfloat16", "cpu"), some_batches())
    if sharded:
        shard(whole)
    cut(whole, target, tmp_path)
    model, info = AutoModel.from_pretrained(target, dtype=torch.bfloat16, output_loading_info=True)
    assert not any(info.values()), "nothing is missing, and nothing is there that is not used"
    assert model.config.num_hidden_layers == DEEPEST + 1
    for engine in (ResidentEngine, StreamedEngine):
        assert_equal(outputs(engine.load(source_of(target), CAPTURED, "bfloat16", "cpu"), some_batches()), expected)


@pytest.mark.parametrize("kind", ["packed", "blocks"])
def test_quantised_weights_stay_quantised(tmp_path: Path, kind: str) -> None:
    save_quantised(tmp_path, kind)
    whole, target = tmp_path / "quantised", tmp_path / "cut"
    expected = outputs(StreamedEngine.load(source_of(whole), CAPTURED, "bfloat16", "cpu"), some_batches())
    cut(whole, target, tmp_path)
    assert_equal(outputs(StreamedEngine.load(source_of(target), CAPTURED, "bfloat16", "cpu"), some_batches()), expected)
    assert (target / "model.safetensors").stat().st_size < 0.85 * (whole / "model.safetensors").stat().st_size


@pytest.mark.parametrize("with_head", [False, True])
def test_no_byte_more_is_read_than_is_needed(tmp_path: Path, store_url: str, with_head: bool) -> None:  # noqa: FBT001 - a parameter
    whole, origin = tmp_path / "whole", open_store(store_url)
    save_model(whole, "llama")
    shard(whole)
    for path in whole.iterdir():
        origin.put_file(path.name, path)
    source, read = find_source(store_url, None), {}
    original = source.read

    def reading(name: str, start: int, stop: int) -> bytes:
        read.setdefault(name, []).append((start, stop))
        return original(name, start, stop)

    source.read = reading  # type: ignore[method-assign]
    (tmp_path / "small").mkdir()
    fetch(TruncatedSource(source, DEEPEST, with_head, tmp_path / "small"), str(tmp_path / "cut"), lambda _: None)
    wanted = ["model.embed_tokens.", "model.norm.", *(f"model.layers.{layer}." for layer in range(DEEPEST + 1))]
    wanted += ["lm_head."] if with_head else []
    for name in {path.name for path in whole.glob("*.safetensors")}:
        data = (whole / name).read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        needed = {(0, 8), (8, begin)}
        for tensor, entry in json.loads(data[8:begin]).items():
            if tensor.startswith(tuple(wanted)):
                first, last = entry["data_offsets"]
                needed.add((begin + first, begin + last))
        assert set(read[name]) == needed
    head = tmp_path / "cut" / HEAD
    assert head.exists() == with_head
    if with_head:
        tensors = load_file(head)
        original_head = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.bfloat16).lm_head.weight
        assert tensors.keys() == {"model.norm.weight", "lm_head.weight"}
        assert torch.equal(tensors["lm_head.weight"], original_head)


def test_killed_and_started_again_it_goes_on_with_the_next_file(tmp_path: Path) -> None:
    whole, target, small = tmp_path / "whole", tmp_path / "cut", tmp_path / "small"
    save_model(whole, "llama")
    shard(whole)
    cut(whole, tmp_path / "expected", tmp_path)
    source, gets = TruncatedSource(find_source(str(whole), None), DEEPEST, False, small), []  # noqa: FBT003 - its field
    original = source.get

    def get(name: str, folder: Path) -> Path:
        gets.append(name)
        if len(gets) == 5:
            raise KeyboardInterrupt
        return original(name, folder)

    source.get = get  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        fetch(source, str(target), lambda _: None)
    there = {
        path.name: path.stat().st_mtime_ns for path in target.iterdir() if path.suffix in {".safetensors", ".json"}
    }
    assert there
    assert CONFIG not in there, "nothing loads what is not whole"
    cut(whole, target, tmp_path)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "expected").iterdir() if path.is_file()}
    assert {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()} == expected
    assert {name: (target / name).stat().st_mtime_ns for name in there} == there
    assert cut(whole, target, tmp_path) == []


def test_another_depth_is_another_model(tmp_path: Path) -> None:
    whole, target = tmp_path / "whole", tmp_path / "cut"
    save_model(whole, "llama")
    cut(whole, target, tmp_path, deepest=0)
    assert AutoModel.from_pretrained(target).config.num_hidden_layers == 1
    cut(whole, target, tmp_path, deepest=2)
    assert AutoModel.from_pretrained(target).config.num_hidden_layers == 3


def test_a_file_that_is_all_needed_is_taken_as_it_is(tmp_path: Path) -> None:
    """The last layer is: only the head is left out."""
    whole, target = tmp_path / "whole", tmp_path / "cut"
    save_model(whole, "bert")
    cut(whole, target, tmp_path, deepest=LAYERS - 1)
    assert (target / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("config", "depth", "expected"),
    [
        ({"n_layer": 4}, 2, {"n_layer": 2}),
        (
            {"num_hidden_layers": 3, "layer_types": ["a", "b", "c"], "eos_token_id": [1, 2]},
            2,
            {"num_hidden_layers": 2, "layer_types": ["a", "b"], "eos_token_id": [1, 2]},
        ),
        (
            {"model_type": "x", "text_config": {"num_hidden_layers": 4, "y": 1}},
            1,
            {"model_type": "x", "text_config": {"num_hidden_layers": 1, "y": 1}},
        ),
    ],
)
def test_the_config_says_how_many_layers_are_left(config: dict[str, Any], depth: int, expected: dict[str, Any]) -> None:
    assert truncated(config, depth, "m") == expected


@pytest.mark.parametrize("config", [{"num_hidden_layers": 2}, {"hidden_size": 8}])
def test_a_layer_that_is_not_there_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"Layer 2 is out of range: m (has layers 0 to 1|does not say)"):
        truncated(config, 3, "m")


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "whole", "llama")
    arguments = ["truncate", "--from", str(tmp_path / "whole"), "--to", str(tmp_path / "cut")]
    assert _run([*arguments, "--layers", "1"]) == 0
    assert "✓ Model truncated: layers 0 to 1, " in capsys.readouterr().out
    assert _run([*arguments, "--layers", "4"]) == 2
    assert "Layer 4 is out of range: " in capsys.readouterr().err
    assert _run(arguments) == 2
    assert "Give an experiment, or --from and --layers." in capsys.readouterr().err
