"""The resident engine: the truncated model stays on the slot's devices, one forward pass captures every layer.

Plain forward hooks, no wrapper library. Legend: B contexts, T tokens, D d_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from kubesae.errors import ConfigError
from kubesae.model.truncate import find_layers, load_truncated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.model.source import ModelSource


class ResidentEngine:
    """Runs a truncated model and returns the outputs of the captured layers."""

    name = "resident"

    def __init__(self, model: nn.Module, layers: Sequence[int], depth: int) -> None:
        """Hook `layers` of `model`, which has `depth` layers."""
        self._model = model
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype
        # BERT and its kin attend in both directions; transformers marks the attention of all others.
        self._causal = any(getattr(module, "is_causal", False) for module in model.modules())
        self._captured: dict[int, torch.Tensor] = {}
        for layer, module in enumerate(find_layers(model, depth)):
            if layer in layers:
                module.register_forward_hook(self._hook(layer))

    @classmethod
    def load(cls, source: ModelSource, layers: Sequence[int], dtype: str, device: str) -> ResidentEngine:
        """Load what `layers` need of the model."""
        depth = max(layers) + 1
        return cls(load_truncated(source, depth, dtype, device), layers, depth)

    def _hook(self, layer: int) -> Any:
        def capture(_module: nn.Module, _args: Any, output: Any) -> None:
            self._captured[layer] = output[0] if isinstance(output, tuple) else output

        return capture

    @property
    def device_name(self) -> str:
        """Name of the device, for the numerics record."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return f"{self._device.type} {torch.backends.cpu.get_cpu_capability()}"

    @torch.inference_mode()
    def forward(
        self, ids_BT: npt.NDArray[np.uint32], documents_BT: npt.NDArray[np.int64] | None = None
    ) -> dict[int, torch.Tensor]:
        """Run the model and return each captured layer's output, [B, T, D], on the device it was computed on.

        Args:
            ids_BT: token ids.
            documents_BT: number of each token's document; tokens then see only their own document, and position 0.
                None: all earlier tokens of the context.

        """
        self._captured.clear()
        ids = torch.from_numpy(ids_BT.astype(np.int64)).to(self._device)
        inputs: dict[str, Any] = {"input_ids": ids}
        if documents_BT is not None:
            inputs["attention_mask"] = self._document_mask(torch.from_numpy(documents_BT).to(self._device))
        if self._causal:
            inputs["use_cache"] = False
        self._model(**inputs)
        return dict(self._captured)

    def _document_mask(self, documents_BT: torch.Tensor) -> torch.Tensor:
        """Additive mask [B, 1, T, T]: 0 where a token may look, the dtype's minimum elsewhere."""
        config: Any = self._model.config
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise ConfigError(
                "attention_across_documents: false is not supported for models with sliding-window layers. Set it to "
                "true, or give another model."
            )
        same = documents_BT[:, :, None] == documents_BT[:, None, :]
        same[:, :, 0] = True
        if self._causal:
            same = same.tril()
        mask = torch.zeros(same.shape, dtype=self._dtype, device=same.device)
        return mask.masked_fill(~same, torch.finfo(self._dtype).min)[:, None]
