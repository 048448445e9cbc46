"""The resident engine: the truncated model stays on the slot's devices, one forward pass captures every layer.

Plain forward hooks, no wrapper library. Legend: B contexts, T tokens, D d_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kubesae.model.inputs import Batch, device_name, hidden_states, inputs_of
from kubesae.model.truncate import find_layers, load_truncated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from kubesae.model.source import ModelSource


class ResidentEngine:
    """Runs a truncated model and returns the outputs of the captured layers."""

    name = "resident"

    def __init__(self, model: nn.Module, layers: Sequence[int], depth: int) -> None:
        """Hook `layers` of `model`, which has `depth` layers."""
        self._model = model
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype
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
            self._captured[layer] = hidden_states(output)

        return capture

    @property
    def device_name(self) -> str:
        """Name of the device, for the numerics record."""
        return device_name(self._device, self._dtype)

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield each batch's number, each captured layer and its output [B, T, D], batch by batch."""
        for number, batch in enumerate(batches):
            for layer, output_BTD in self.forward(batch.ids_BT, batch.documents_BT).items():
                yield number, layer, output_BTD

    @torch.inference_mode()
    def forward(
        self, ids_BT: npt.NDArray[np.uint32], documents_BT: npt.NDArray[np.int64] | None = None
    ) -> dict[int, torch.Tensor]:
        """Run a batch (`Batch`); return each captured layer's output, [B, T, D], on the device it was computed on."""
        self._captured.clear()
        self._model(**inputs_of(Batch(ids_BT, documents_BT), self._model, self._device, self._dtype))
        return dict(self._captured)
