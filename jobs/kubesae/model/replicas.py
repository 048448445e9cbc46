"""The resident engine on several devices, each of which holds the whole truncated model and takes its share of batches.

Batches are what they are on one device, so the bits are, too. Legend: B contexts, T tokens, D d_model.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch

from kubesae.limits import REPLICA_SHARE
from kubesae.model.inputs import devices
from kubesae.model.resident import ResidentEngine
from kubesae.model.truncate import loaded_bytes
from kubesae.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from kubesae.model.inputs import Batch
    from kubesae.model.source import ModelSource


class Replicas:
    """Runs a model on several devices at the same time."""

    name = ResidentEngine.name

    def __init__(self, engines: Sequence[ResidentEngine]) -> None:
        """`engines` are of the same model, each on a device of its own."""
        self._engines = engines
        self._free: SimpleQueue[ResidentEngine] = SimpleQueue()
        for engine in engines:
            self._free.put(engine)

    @property
    def device_name(self) -> str:
        """Name of the devices, for the numerics record: they are of one kind, and which one computes changes no bit."""
        return self._engines[0].device_name

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, Tensor]]:
        """Yield each batch's number, each captured layer and its output [B, T, D], batch by batch."""
        passes = in_order(self._forward, batches, len(self._engines))
        for number, outputs in enumerate(passes):
            for layer, output_BTD in outputs.items():
                yield number, layer, output_BTD

    def _forward(self, batch: Batch) -> dict[int, Tensor]:
        """Run a batch on whichever device is free."""
        engine = self._free.get()
        try:
            return engine.forward(batch.ids_BT, batch.documents_BT)
        finally:
            self._free.put(engine)


def load_resident(source: ModelSource, layers: Sequence[int], dtype: str, device: str) -> ResidentEngine | Replicas:
    """Load a truncated model, on each of several devices where it fits one.

    Args:
        source: the model.
        layers: those to capture.
        dtype: the model computes in this.
        device: a torch device; several with commas between them: a replica on each; or `auto`: a replica on each
            visible GPU where one holds it, else spread over them; without GPUs the CPU.

    Raises:
        ConfigError: the weights cannot be loaded.
        HubError: the hub does not answer.
        KubesaeError: they do not fit into memory.

    """
    places = devices(device)
    if device == "auto" and len(places) > 1:
        free = min(torch.cuda.mem_get_info(place)[0] for place in places)
        if loaded_bytes(source, max(layers) + 1, dtype) > REPLICA_SHARE * free:
            return ResidentEngine.load(source, layers, dtype, device)
    engines = [ResidentEngine.load(source, layers, dtype, str(place)) for place in places]
    return Replicas(engines) if len(engines) > 1 else engines[0]
