"""Quantised weights are what a plain reading of their formats says, and models with them give what whole ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import quantised_models
from engine_outputs import CAPTURED, assert_equal, outputs, some_batches, source_of
from kubesae.errors import ConfigError
from kubesae.model.quantised import dequantised, scale_blocks, unpack4
from kubesae.model.resident import ResidentEngine
from kubesae.model.streamed import StreamedEngine
from quantised_models import BLOCK, BLOCK_CONFIG, PACKED_CONFIG, save_quantised

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("shape", [(1, 32), (3, 64), (5, 96)])
def test_packed_numbers_are_unpacked_as_they_were_packed(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    parts, whole = quantised_models.pack(weight)
    assert torch.equal(unpack4(parts["weight_packed"], parts["weight_scale"], list(shape)), whole)


def test_every_number_of_4_bits_is_read() -> None:
    """Eight in a word, the lowest bits first; the last word is not full."""
    packed = torch.tensor([[0x76543210, -0x01234568, 0x000000F0]], dtype=torch.int32)  # the second is 0xFEDCBA98
    numbers = unpack4(packed, torch.ones(1, 1, dtype=torch.bfloat16), [1, 18])
    assert numbers.tolist() == [[*range(-8, 8), -8, 7]]


@pytest.mark.parametrize("shape", [(16, 16), (17, 40), (3, 5)])
def test_blocks_are_scaled_by_their_own_number(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, shape[1])
    parts, whole = quantised_models.scale(weight)
    assert torch.equal(scale_blocks(parts["weight"], parts["weight_scale_inv"], (BLOCK, BLOCK)), whole)


@pytest.mark.parametrize("kind", ["packed", "blocks"])
def test_a_quantised_model_gives_what_the_whole_one_gives(tmp_path: Path, kind: str) -> None:
    """Multi-head latent attention, a shared expert, the first layer dense; packed: `model_type` is Kimi-K2's."""
    save_quantised(tmp_path, kind)
    whole = ResidentEngine.load(source_of(tmp_path / "whole"), CAPTURED, "bfloat16", "cpu")
    engine = StreamedEngine.load(source_of(tmp_path / "quantised"), CAPTURED, "bfloat16", "cpu")
    assert_equal(outputs(engine, some_batches()), outputs(whole, some_batches()))


def test_kimi_k2_is_known_without_code_of_its_repository(tmp_path: Path) -> None:
    save_quantised(tmp_path, "packed")
    source = source_of(tmp_path / "quantised")
    assert (source.config.model_type, source.d_model, source.num_layers) == ("deepseek_v3", 64, 4)


def change(config: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Return the config with other values of its weights, or of its own."""
    group = config["config_groups"]["group_0"]
    weights = group["weights"] | {name: value for name, value in values.items() if name in group["weights"]}
    own = {name: value for name, value in values.items() if name not in group["weights"]}
    return config | own | {"config_groups": {"group_0": group | {"weights": weights}}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantised by 'gptq'"),
        ({key: value for key, value in BLOCK_CONFIG.items() if key != "weight_block_size"}, "quantised by 'fp8'"),
        (change(PACKED_CONFIG, num_bits=8), "'num_bits': 8"),
        (change(PACKED_CONFIG, symmetric=False), "'symmetric': False"),
        (change(PACKED_CONFIG, strategy="channel"), "'strategy': 'channel'"),
        (change(PACKED_CONFIG, format="marlin-24"), "'marlin-24'"),
    ],
)
def test_other_ways_of_quantising_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dequantised({}, config)


def test_what_is_not_quantised_stays_as_it_is() -> None:
    tensors = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
    for config in (None, PACKED_CONFIG, BLOCK_CONFIG):
        assert dequantised(tensors, config) == tensors
