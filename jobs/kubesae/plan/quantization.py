"""How many bytes a weight takes in a checkpoint that is packed, from `quantization_config` alone.

Two formats: compressed-tensors' `pack-quantized` (Kimi-K2-Thinking: INT4, a bfloat16 scale for each group of 32 weights
of a row) and FP8 in blocks (DeepSeek-V3: one float32 scale for each 128 x 128 weights). Both pack `Linear` layers only,
but for those that their lists of exceptions name. What is written beside the weights is counted too.

Sources: github.com/vllm-project/compressed-tensors, `compressors/pack_quantized`; config.json of both models.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD = 4
"""bytes of an int32, into which INT4 weights are packed"""
_SCALE = 2
"""bytes of a scale of `pack-quantized`: bfloat16"""
_SHAPE = 16
"""bytes of `weight_shape`: two int64"""
_BLOCK_SCALE = 4
"""bytes of a scale of FP8 blocks: float32"""


@dataclass(frozen=True, slots=True)
class Packing:
    """How `Linear` weights are packed.

    Attributes:
        words: for people: `INT4, groups of 32`.
        bits: of a weight.
        group: weights of a row that share a scale; None: blocks instead.
        block: rows and columns that share a scale; None: groups instead.
        symmetric: there are no zero points.
        ignored: names of modules that are not packed; `re:` begins a regular expression.

    """

    words: str
    bits: int
    group: int | None
    block: tuple[int, int] | None
    symmetric: bool
    ignored: tuple[str, ...]

    def packs(self, module: str) -> bool:
        """Whether the weights of a `Linear` with this name in the checkpoint are packed."""
        return not any(_matches(pattern, module) for pattern in self.ignored)

    def bytes_of(self, shape: Sequence[int]) -> int:
        """Return bytes of a packed matrix [outputs, inputs] with all that is stored beside it."""
        rows, columns = shape
        if self.block is not None:
            scales = math.ceil(rows / self.block[0]) * math.ceil(columns / self.block[1])
            return rows * columns * self.bits // 8 + scales * _BLOCK_SCALE
        groups = math.ceil(columns / self.group) if self.group else 1
        per_word = 8 * _WORD // self.bits
        zero_points = 0 if self.symmetric else math.ceil(rows / per_word) * groups * _WORD
        return rows * math.ceil(columns / per_word) * _WORD + rows * groups * _SCALE + zero_points + _SHAPE


def packing_of(config: dict[str, Any] | None) -> Packing | None:
    """Return what a `quantization_config` says; None: nothing, or what is not known here (`is_unknown`)."""
    if not config:
        return None
    if config.get("quant_method") == "compressed-tensors" and config.get("format") == "pack-quantized":
        (scheme, *_) = config["config_groups"].values()
        weights = scheme["weights"]
        bits, group = weights["num_bits"], weights.get("group_size")
        words = f"INT{bits}, groups of {group}" if group else f"INT{bits}, a scale a row"
        ignored = tuple(config.get("ignore") or ())
        return Packing(words, bits, group, None, weights.get("symmetric", True), ignored)
    if config.get("quant_method") == "fp8" and config.get("weight_block_size"):
        rows, columns = config["weight_block_size"]
        exceptions = ("lm_head", *(config.get("modules_to_not_convert") or ()))
        return Packing(
            f"FP8, blocks of {rows} x {columns}", 8, None, (rows, columns), symmetric=True, ignored=exceptions
        )
    return None


def is_unknown(config: dict[str, Any] | None) -> bool:
    """Whether a checkpoint is packed in a way that is not known here: its bytes are then counted as if it were not."""
    return bool(config) and packing_of(config) is None


def _matches(pattern: str, module: str) -> bool:
    """Whether an entry of a list of exceptions names this module, or one that it lies in."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    return f".{pattern}." in f".{module}."
