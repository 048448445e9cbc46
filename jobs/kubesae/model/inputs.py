"""What a model is run on: a batch of contexts as its keyword arguments. Legend: B contexts, T tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from kubesae.errors import ConfigError
from kubesae.model.products import in_float32

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Batch:
    """Contexts of one forward pass.

    Attributes:
        ids_BT: token ids, uint32.
        documents_BT: number of each token's document, int64; tokens then see only their own document, and position 0.
            None: all earlier tokens of the context.

    """

    ids_BT: npt.NDArray[np.uint32]
    documents_BT: npt.NDArray[np.int64] | None = None


def inputs_of(batch: Batch, model: nn.Module, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments for `model`, of tensors on `device`.

    Raises:
        ConfigError: the model cannot keep documents apart.

    """
    causal = is_causal(model)
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(batch.ids_BT.astype(np.int64)).to(device)}
    if batch.documents_BT is not None:
        if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
            raise ConfigError(
                "attention_across_documents: false is not supported for models with sliding-window layers. Set it to "
                "true, or give another model."
            )
        documents_BT = torch.from_numpy(batch.documents_BT).to(device)
        inputs["attention_mask"] = _document_mask(documents_BT, dtype, causal=causal)
    if causal:
        inputs["use_cache"] = False
    return inputs


def is_causal(model: nn.Module) -> bool:
    """Whether tokens see only earlier ones: transformers marks the attention of all but BERT and its kin."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def _document_mask(documents_BT: torch.Tensor, dtype: torch.dtype, *, causal: bool) -> torch.Tensor:
    """Additive mask [B, 1, T, T]: 0 where a token may look, the dtype's minimum elsewhere."""
    same = documents_BT[:, :, None] == documents_BT[:, None, :]
    same[:, :, 0] = True
    if causal:
        same = same.tril()
    mask = torch.zeros(same.shape, dtype=dtype, device=same.device)
    return mask.masked_fill(~same, torch.finfo(dtype).min)[:, None]


def hidden_states(output: Any) -> torch.Tensor:
    """Return the hidden states [B, T, D] of what a layer returns: itself, or the first of a tuple."""
    return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


def device_name(device: torch.device, dtype: torch.dtype) -> str:
    """Name of a device that a model computes on in `dtype`, for the numerics record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, products in float32" if in_float32(device, dtype) else name


def devices(wanted: str) -> list[torch.device]:
    """Return the devices that `collect.device` names."""
    if wanted == "auto" and torch.cuda.is_available():
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [torch.device("cpu" if name == "auto" else name) for name in wanted.split(",")]
