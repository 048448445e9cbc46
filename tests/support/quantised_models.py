"""Checkpoints with quantised experts, written as their publishers write them, and what they stand for.

Numbers are packed and unpacked here one by one, in the plainest way: this is what the reader is compared with.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tiny_models import save_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

GROUP, BLOCK = 32, 16

PACKED_CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": GROUP,
                "actorder": None,
                "dynamic": False,
            },
        }
    },
}
BLOCK_CONFIG: dict[str, Any] = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [BLOCK, BLOCK],
}


def pack(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the tensors of a packed matrix, by their endings, and the bfloat16 matrix that they stand for."""
    rows, columns = weight.shape
    scale = torch.zeros(rows, columns // GROUP, dtype=torch.bfloat16)
    words = torch.zeros(rows, columns // 8, dtype=torch.int32)
    whole = torch.zeros(rows, columns, dtype=torch.bfloat16)
    for row in range(rows):
        for group in range(columns // GROUP):
            values = weight[row, group * GROUP : (group + 1) * GROUP].float()
            scale[row, group] = values.abs().max() / 7
            for place in range(GROUP):
                number = max(-8, min(7, round(float(values[place]) / float(scale[row, group]))))
                column = group * GROUP + place
                word = (int(words[row, column // 8]) & 0xFFFFFFFF) | ((number + 8) << (4 * (column % 8)))
                words[row, column // 8] = word - (1 << 32) if word >= 1 << 31 else word
                whole[row, column] = torch.tensor(number, dtype=torch.bfloat16) * scale[row, group]
    return {"weight_packed": words, "weight_scale": scale, "weight_shape": torch.tensor([rows, columns])}, whole


def scale(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the tensors of an fp8 matrix, by their endings, and the bfloat16 matrix that they stand for."""
    rows, columns = weight.shape
    numbers = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn)
    scales = torch.zeros(-(-rows // BLOCK), -(-columns // BLOCK))
    whole = torch.zeros(rows, columns, dtype=torch.bfloat16)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            place = slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK)
            scales[i, j] = weight[place].float().abs().max() / 448
            numbers[place] = (weight[place].float() / scales[i, j]).to(torch.float8_e4m3fn)
            whole[place] = (numbers[place].float() * scales[i, j]).bfloat16()
    return {"weight": numbers, "weight_scale_inv": scales}, whole


def save_quantised(folder: Path, kind: str) -> None:
    """Save a model in Kimi-K2's shape with experts of 4 bits ("packed"), or DeepSeek-V3's in fp8 ("blocks").

    `folder / "quantised"` holds it, `folder / "whole"` the same model with bfloat16 weights.
    """
    quantise, config = (pack, PACKED_CONFIG) if kind == "packed" else (scale, BLOCK_CONFIG)
    sizes = {"hidden_size": 64, "moe_intermediate_size": 32, "n_group": 1} if kind == "packed" else {"hidden_size": 40}
    for name in ("quantised", "whole"):
        save_model(folder / name, "deepseek-v3", **sizes)
    quantised: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "whole" / "model.safetensors").items():
        stem, _, ending = name.rpartition(".")
        chosen = ".experts." in name if kind == "packed" else tensor.dim() == 2 and ".layers." in name
        if chosen and ending == "weight" and not stem.endswith("mlp.gate"):
            parts, whole[name] = quantise(tensor)
            quantised |= {f"{stem}.{part}": value for part, value in parts.items()}
        else:
            quantised[name] = whole[name] = tensor
    save_file(quantised, folder / "quantised" / "model.safetensors", {"format": "pt"})
    save_file(whole, folder / "whole" / "model.safetensors", {"format": "pt"})
    file = folder / "quantised" / "config.json"
    changes: dict[str, Any] = {"quantization_config": config}
    if kind == "packed":
        changes |= {"model_type": "kimi_k2", "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
