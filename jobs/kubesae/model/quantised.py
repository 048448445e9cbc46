"""Weights of quantised checkpoints, made whole when they are read: what a layer needs, and no more, at a time.

    compressed-tensors, pack-quantized, 4 bits, symmetric, by groups (Kimi-K2's experts):
        X.weight_packed  int32 [out, in / 8]       eight numbers a word, the first in the lowest bits, each plus 8
        X.weight_scale   bfloat16 [out, in / group]
        X.weight_shape   int64 [2]                 out, in
    fp8 by blocks (DeepSeek-V3):
        X.weight            float8_e4m3fn [out, in]
        X.weight_scale_inv  float32 [out / block, in / block], rounded up; despite its name it multiplies

Sources: https://github.com/vllm-project/compressed-tensors (compressors/pack_quantized), arXiv 2412.19437 and the
`weight_dequant` that comes with DeepSeek-V3's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_BITS, _IN_A_WORD = 4, 8


class Lazy(Protocol):
    """A tensor that is read when it is indexed with `...`, as safetensors' slices are."""

    def __getitem__(self, index: Any, /) -> Tensor:
        """Return it."""


@dataclass(frozen=True, slots=True)
class Packed4:
    """A matrix [out, in] of 4-bit numbers with a scale for each group of columns."""

    packed: Lazy
    scale: Lazy
    shape: Lazy

    def __getitem__(self, _index: Any) -> Tensor:
        """Return it in the dtype of its scales."""
        return unpack4(self.packed[...], self.scale[...], self.shape[...].tolist())


@dataclass(frozen=True, slots=True)
class BlockScaled:
    """A matrix [out, in] of fp8 numbers with a scale for each block."""

    weight: Lazy
    scale: Lazy
    block: tuple[int, int]

    def __getitem__(self, _index: Any) -> Tensor:
        """Return it in bfloat16."""
        return scale_blocks(self.weight[...], self.scale[...], self.block)


def unpack4(packed: Tensor, scale: Tensor, shape: list[int]) -> Tensor:
    """Return the matrix [out, in] that 4-bit numbers stand for.

    Args:
        packed: int32 [out, in / 8], rounded up.
        scale: [out, groups], of equal groups of columns.
        shape: [out, in].

    """
    out, columns = shape
    shifts = torch.arange(0, _BITS * _IN_A_WORD, _BITS, dtype=torch.int32, device=packed.device)
    numbers = (packed.unsqueeze(-1) >> shifts) & 0xF
    numbers = numbers.view(out, -1)[:, :columns].sub_(8)
    groups = numbers.view(out, scale.shape[1], -1).to(scale.dtype)
    return groups.mul_(scale.unsqueeze(-1)).view(out, columns)


def scale_blocks(weight: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """Return bfloat16 [out, in]: each block of `weight` times its number in `scale`, multiplied in float32."""
    rows, columns = weight.shape
    whole = scale.float().repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return whole.mul_(weight.float()).bfloat16()


def dequantised(tensors: Mapping[str, Lazy], config: dict[str, Any] | None) -> dict[str, Lazy]:
    """Return `tensors` with whole matrices in place of quantised ones, read when they are asked for.

    Args:
        tensors: of a checkpoint, by name; all that belong to a matrix have to be there.
        config: `quantization_config` of the model's config; None: nothing is quantised.

    Raises:
        ConfigError: a way of quantising that this does not read.

    """
    if config is None:
        return dict(tensors)
    method = config.get("quant_method")
    if method == "compressed-tensors":
        _check_packed(config)
        return _replace_packed(tensors)
    if method == "fp8" and config.get("weight_block_size"):
        rows, columns = config["weight_block_size"]
        return _replace_blocks(tensors, (int(rows), int(columns)))
    raise ConfigError(
        f"The model's weights are quantised by {method!r}, which the streamed engine does not read. It reads "
        "compressed-tensors (pack-quantized, 4 bits, symmetric, by groups) and fp8 by blocks: give a checkpoint in one "
        "of these, or without quantisation."
    )


def _check_packed(config: dict[str, Any]) -> None:
    for name, group in config.get("config_groups", {}).items():
        weights = group.get("weights") or {}
        found = {key: weights.get(key) for key in ("num_bits", "type", "symmetric", "strategy")}
        wanted = {"num_bits": _BITS, "type": "int", "symmetric": True, "strategy": "group"}
        if found != wanted or config.get("format") != "pack-quantized" or group.get("input_activations"):
            raise ConfigError(
                f"The model's weights are compressed-tensors of a kind that the streamed engine does not read: "
                f"{name} has format {config.get('format')!r} and weights {found}. It reads pack-quantized weights "
                f"with {wanted}, and no quantised activations: give such a checkpoint, or one without quantisation."
            )


def _replace_packed(tensors: Mapping[str, Lazy]) -> dict[str, Lazy]:
    whole: dict[str, Lazy] = {}
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        if kind == "weight_packed":
            whole[f"{stem}.weight"] = Packed4(tensor, tensors[f"{stem}.weight_scale"], tensors[f"{stem}.weight_shape"])
        elif kind not in {"weight_scale", "weight_shape"}:
            whole[name] = tensor
    return whole


def _replace_blocks(tensors: Mapping[str, Lazy], block: tuple[int, int]) -> dict[str, Lazy]:
    whole: dict[str, Lazy] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(f"{name}_scale_inv")
        if scale is not None:
            whole[name] = BlockScaled(tensor, scale, block)
        elif not name.endswith("_scale_inv"):
            whole[name] = tensor
    return whole
