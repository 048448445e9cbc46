"""The resident engine on several devices, each of which holds the whole truncated model and takes every n-th batch.

Batches are what they are on one device, so the bits are, too. Legend: B contexts, T tokens, D d_model.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch

from kubesae.limits import REPLICA_SHARE
from kubesae.model.inputs import devices
from kubesae.model.resident import ResidentEngine
from kubesae.model.truncate import loaded_bytes
from kubesae.parallel import one_thread_each

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from torch import Tensor

    from kubesae.model.inputs import Batch
    from kubesae.model.source import ModelSource


class Replicas:
    """Runs a model on several devices at the same time."""

    name = ResidentEngine.name

    def __init__(self, engines: Sequence[ResidentEngine]) -> None:
        """`engines` are of the same model, each on a device of its own."""
        self._engines = engines

    @property
    def device_name(self) -> str:
        """Name of the devices, for the numerics record: they are of one kind, and which one computes changes no bit."""
        return self._engines[0].device_name

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, Tensor]]:
        """Yield each batch's number, each captured layer and its output [B, T, D], batch by batch."""
        waiting: deque[tuple[int, Future[dict[int, Tensor]]]] = deque()
        most = 2 * len(self._engines)  # one computes, one waits; outputs are taken meanwhile
        with one_thread_each(self._engines) as threads:
            for number, batch in enumerate(batches):
                place = number % len(threads)
                forward = self._engines[place].forward
                waiting.append((number, threads[place].submit(forward, batch.ids_BT, batch.documents_BT)))
                if len(waiting) == most:
                    yield from _outputs(waiting)
            while waiting:
                yield from _outputs(waiting)


def _outputs(waiting: deque[tuple[int, Future[dict[int, Tensor]]]]) -> Iterator[tuple[int, int, Tensor]]:
    number, passing = waiting.popleft()
    for layer, output_BTD in passing.result().items():
        yield number, layer, output_BTD


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
