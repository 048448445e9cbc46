"""The streamed engine: every batch of a block passes a layer before the next layer's weights take its place.

A device holds one layer, the next one on its way, and the hidden states of the block: a model whose layers are many
times its memory runs there, and loading hides behind computing where the block is large enough.

Nothing of a model is written anew here. Each batch is a forward pass of transformers' own model, in a greenlet that
stops before every layer; the engine lets all of them pass a layer, and changes its weights. So masks, positions and
whatever else a model hands to its layers are what they are in the resident engine, and so are the bits.

Legend: B contexts, T tokens, D d_model.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet

from kubesae.memory import give_back, memory_for
from kubesae.model.inputs import device_name, devices, hidden_states, inputs_of
from kubesae.model.skeleton import Skeleton
from kubesae.model.weight_files import WeightFiles, local_folder
from kubesae.model.weight_readers import CachedReader, reader_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from torch import Tensor, nn

    from kubesae.model.inputs import Batch
    from kubesae.model.source import ModelSource
    from kubesae.model.weight_readers import Reader


class StreamedEngine:
    """Runs a model layer by layer over many batches and yields the outputs of the captured layers."""

    name = "streamed"

    def __init__(self, lanes: Sequence[Lane], reader: Reader, depth: int) -> None:
        """`lanes` are the devices, which share out the batches and each reading of the weights."""
        self._lanes = lanes
        self._reader = reader
        self._depth = depth
        self._reading = ThreadPoolExecutor(1, "weights")
        self._ahead: Future[list[dict[str, Any]]] | None = None  # layer 0, while the last one of a block computes

    @classmethod
    def load(
        cls, source: ModelSource, layers: Sequence[int], dtype: str, device: str, weights: str = "auto"
    ) -> StreamedEngine:
        """Build a model without weights on each device, and load what belongs to no layer.

        Args:
            source: the model.
            layers: those to capture.
            dtype: the model computes in this.
            device: a torch device, several with commas between them, or `auto`: all visible GPUs, else the CPU.
            weights: how they are read: `cached`, `direct`, or `auto`: by the memory there is.

        Raises:
            ConfigError: there are no such weights, or they are quantised in a way that is not read.
            HubError: the hub does not answer.
            KubesaeError: memory ran out.

        """
        depth = max(layers) + 1
        with memory_for(f"what {source.path!r} has besides its layers", "Give the worker more memory."):
            skeletons = [Skeleton(source, depth, dtype, place) for place in devices(device)]
            files = WeightFiles(local_folder(source, skeletons[0].path, depth), skeletons[0].path, depth)
            for skeleton in skeletons:
                skeleton.take(skeleton.bring(CachedReader(files).tensors(None)))
            reader = reader_for(files, depth, weights)
        return cls([Lane(skeleton, set(layers)) for skeleton in skeletons], reader, depth)

    @property
    def device_name(self) -> str:
        """Name of the devices, for the numerics record: they are of one kind, and which one computes changes no bit."""
        return device_name(self._lanes[0].device, self._lanes[0].skeleton.dtype)

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, Tensor]]:
        """Yield each batch's number, each captured layer and its output [B, T, D], layer by layer."""
        shares = [list(enumerate(batches))[place :: len(self._lanes)] for place in range(len(self._lanes))]
        ahead = self._ahead or self._reading.submit(self._read, 0)
        self._ahead = None
        with _threads(self._lanes) as threads:
            try:
                _wait(thread.submit(lane.begin, share) for thread, lane, share in self._each(threads, shares))
                for layer in range(self._depth):
                    fetched = ahead.result()
                    ahead = self._reading.submit(self._read, (layer + 1) % self._depth)
                    passing = [
                        thread.submit(lane.pass_layer, layer, raw) for thread, lane, raw in self._each(threads, fetched)
                    ]
                    del fetched
                    for done in passing:
                        for number, output_BTD in done.result():
                            yield number, layer, output_BTD
                self._ahead = ahead
            finally:
                _wait(thread.submit(lane.end) for thread, lane in zip(threads, self._lanes, strict=True))

    def _each(self, threads: Sequence[ThreadPoolExecutor], values: Sequence[Any]) -> Iterator[tuple[Any, Lane, Any]]:
        return zip(threads, self._lanes, values, strict=True)

    def _read(self, layer: int) -> list[dict[str, Any]]:
        """Read a layer once, and bring it to each device."""
        self._reader.read(layer)
        return [lane.skeleton.bring(self._reader.tensors(layer)) for lane in self._lanes]


class Lane:
    """One device: a model with the weights of one layer, and its batches, each stopped before that layer.

    All methods have to be called by the same thread, whose greenlets the forward passes are.
    """

    def __init__(self, skeleton: Skeleton, layers: set[int]) -> None:
        """Capture `layers`."""
        self.skeleton = skeleton
        self.device = skeleton.device
        self._walks: dict[int, greenlet] = {}
        self._outputs: list[tuple[int, Tensor]] = []
        self._number = 0
        last = len(skeleton.layers) - 1
        for layer, module in enumerate(skeleton.layers):
            module.register_forward_pre_hook(_stop)
            module.register_forward_hook(partial(self._passed, captured=layer in layers, last=layer == last))

    def _passed(self, _module: nn.Module, _inputs: Any, output: Any, *, captured: bool, last: bool) -> None:
        if captured:
            self._outputs.append((self._number, hidden_states(output)))
        if last:
            raise GreenletExit  # what follows the last captured layer is not computed

    @torch.inference_mode()
    def begin(self, batches: Sequence[tuple[int, Batch]]) -> None:
        """Begin with numbered batches: all that comes before the first layer."""
        skeleton = self.skeleton
        for number, batch in batches:
            inputs = inputs_of(batch, skeleton.model, self.device, skeleton.dtype)
            self._walks[number] = greenlet(partial(skeleton.model, **inputs))
            self._walks[number].switch()

    @torch.inference_mode()
    def pass_layer(self, layer: int, raw: dict[str, Any]) -> list[tuple[int, Tensor]]:
        """Let all batches pass a layer, whose weights are `raw`; return its outputs [B, T, D] where it is captured."""
        self.skeleton.take(raw, layer)
        raw.clear()  # packed weights are whole now
        for number, walk in self._walks.items():
            self._number = number
            walk.switch()
        self.skeleton.drop(layer)
        give_back()  # else it grows by what lies between hidden states, twice their size and more
        outputs, self._outputs = self._outputs, []
        return outputs

    def end(self) -> None:
        """Give up what has not come to its end."""
        for walk in self._walks.values():
            if walk:
                walk.throw()
        self._walks, self._outputs = {}, []
        for layer in range(len(self.skeleton.layers)):
            self.skeleton.drop(layer)


def _stop(_module: nn.Module, _inputs: Any) -> None:
    """Stop a forward pass before a layer."""
    engine = getcurrent().parent
    if engine is not None:  # None in the main greenlet, where nothing waits
        engine.switch()


@contextmanager
def _threads(lanes: Sequence[Lane]) -> Iterator[list[ThreadPoolExecutor]]:
    """Give a thread for each lane."""
    pools = [ThreadPoolExecutor(1, "lane") for _ in lanes]
    try:
        yield pools
    finally:
        for pool in pools:
            pool.shutdown()


def _wait(futures: Iterator[Future[Any]]) -> None:
    for future in list(futures):
        future.result()
