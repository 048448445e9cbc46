"""Bytes of packed weights, against tensors that are written as the formats say."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file

from kubesae.plan.quantization import is_unknown, packing_of
from planned import known_models


def _file_bytes(path, tensors):
    save_file(tensors, path)
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.parametrize(("rows", "columns"), [(64, 96), (10, 100), (2048, 7168)])
def test_int4_groups(tmp_path, rows, columns):
    packing = packing_of(known_models()["kimi-k2-thinking"].config["quantization_config"])
    assert packing.words == "INT4, groups of 32"
    tensors = {
        "weight_packed": torch.zeros(rows, math.ceil(columns / 8), dtype=torch.int32),
        "weight_scale": torch.zeros(rows, math.ceil(columns / 32), dtype=torch.bfloat16),
        "weight_shape": torch.zeros(2, dtype=torch.int64),
    }
    assert packing.bytes_of((rows, columns)) == _file_bytes(tmp_path / "x.safetensors", tensors)


@pytest.mark.parametrize(("rows", "columns"), [(128, 256), (576, 7168), (100, 130)])
def test_fp8_blocks(tmp_path, rows, columns):
    packing = packing_of(known_models()["deepseek-v3"].config["quantization_config"])
    assert packing.words == "FP8, blocks of 128 x 128"
    tensors = {
        "weight": torch.zeros(rows, columns, dtype=torch.float8_e4m3fn),
        "weight_scale_inv": torch.zeros(math.ceil(rows / 128), math.ceil(columns / 128)),
    }
    assert packing.bytes_of((rows, columns)) == _file_bytes(tmp_path / "x.safetensors", tensors)


def test_exceptions_by_name_and_by_pattern():
    packing = packing_of(known_models()["kimi-k2-thinking"].config["quantization_config"])
    packed = {name: packing.packs(f"model.layers.3.{name}") for name in (
        "mlp.experts.0.gate_proj", "mlp.experts.0.down_proj", "mlp.shared_experts.up_proj", "self_attn.o_proj",
        "mlp.gate_proj", "mlp.down_proj",
    )}  # fmt: skip
    assert [name for name, is_packed in packed.items() if is_packed] == [
        "mlp.experts.0.gate_proj",
        "mlp.experts.0.down_proj",
    ]
    assert not packing.packs("lm_head")
    fp8 = packing_of({"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["model.x"]})
    assert [fp8.packs(name) for name in ("model.x.y", "model.xy", "lm_head")] == [False, True, False]


def test_zero_points_take_room_too():
    scheme = {"weights": {"num_bits": 4, "group_size": 128, "symmetric": False}}
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": scheme}}
    assert packing_of(config).bytes_of((256, 1024)) == 256 * 512 + 256 * 8 * 2 + 32 * 8 * 4 + 16


def test_what_is_not_known_is_said():
    assert is_unknown({"quant_method": "gptq", "bits": 4})
    assert not is_unknown(None)
    assert packing_of({}) is None
