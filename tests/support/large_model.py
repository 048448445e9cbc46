"""A random Llama many times larger than the memory of the process that runs it, written a layer a file.

Every layer has other weights, cheaply: one layer's, rolled.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from kubesae.model.weight_files import INDEX
from tiny_models import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

VOCABULARY = 256


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model; `weights`: bytes of its layers."""

    d_model: int
    d_mlp: int
    layers: int

    @property
    def weights(self) -> int:
        """Bytes of all layers: four matrices of attention, three of the MLP, in bfloat16."""
        return 2 * self.layers * self.d_model * (4 * self.d_model + 3 * self.d_mlp)


def write_large_model(folder: Path, sizes: Sizes) -> None:
    """Write the model and a tokenizer to `folder`."""
    folder.mkdir(parents=True)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=sizes.d_model,
        intermediate_size=sizes.d_mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.d_model // 64,
        max_position_embeddings=4096,
        dtype="bfloat16",
    ).save_pretrained(folder)
    save_tokenizer(folder)
    generator = torch.Generator().manual_seed(0)
    wide, mlp = (sizes.d_model, sizes.d_model), (sizes.d_mlp, sizes.d_model)
    shapes = {f"self_attn.{name}_proj": wide for name in "qkvo"}
    shapes |= {"mlp.gate_proj": mlp, "mlp.up_proj": mlp, "mlp.down_proj": mlp[::-1]}
    layer = {
        f"{name}.weight": (torch.randn(shape, generator=generator) / shape[1] ** 0.5).bfloat16()
        for name, shape in shapes.items()
    }
    ones = torch.ones(sizes.d_model, dtype=torch.bfloat16)
    places: dict[str, str] = {}

    def save(file: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / file, {"format": "pt"})
        places.update(dict.fromkeys(tensors, file))

    embeddings = torch.randn(VOCABULARY, sizes.d_model, generator=generator).bfloat16()
    save("model-outside.safetensors", {"model.embed_tokens.weight": embeddings, "model.norm.weight": ones})
    for number in range(sizes.layers):
        tensors = {f"model.layers.{number}.{name}": tensor.roll(number, 0) for name, tensor in layer.items()}
        norms = {
            f"model.layers.{number}.{name}.weight": ones.clone()
            for name in ("input_layernorm", "post_attention_layernorm")
        }
        save(f"model-{number:03}.safetensors", tensors | norms)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": sizes.weights}, "weight_map": places}))


def forget_pages(folder: Path) -> None:
    """Have the kernel drop a folder's files from the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
