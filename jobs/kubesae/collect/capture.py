"""Capture parts: forward passes planned by each part alone, activations written straight to their place in the tar.

bf16 results depend on how contexts are batched, so the batches are a pure function of the part and the forward batch:
contexts in order, `forward_batch` at a time, and the cut context, if there is one, alone at its own length. When memory
runs out all parts at hand are done again at half the batch; leftovers are never re-batched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch

from kubesae.errors import KubesaeError
from kubesae.memory import is_out_of_memory
from kubesae.model.inputs import Batch
from kubesae.shards import PartTar, codec, position_flags

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.corpus import ShardTokens, TokensManifest
    from kubesae.experiment import DataIdentity
    from kubesae.ledger import Part, Plan


class Engine(Protocol):
    """What runs the model."""

    name: str

    @property
    def device_name(self) -> str:
        """Name of the device, for the numerics record."""

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield number of the batch, layer and output [B, T, D], of each batch and captured layer, in any order."""


@dataclass(frozen=True)
class Captured:
    """One part, captured: its tars lack only flags and digests.

    Attributes:
        part: the part.
        tars: the tar of each layer.
        tokens: uint32 [rows].
        flags: uint8 [rows], bits 0 and 1.
        forward_batch: contexts in one forward pass.

    """

    part: Part
    tars: dict[int, PartTar]
    tokens: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint8]
    forward_batch: int


def batches(part: Part, context: int, forward_batch: int) -> list[tuple[int, int, int]]:
    """Forward batches of a part: first row (from the part's first), contexts, tokens of each context."""
    whole, rest = divmod(part.rows, context)
    planned = [
        (first * context, min(forward_batch, whole - first), context) for first in range(0, whole, forward_batch)
    ]
    return [*planned, (whole * context, 1, rest)] if rest else planned


class Capturer:
    """Captures parts of one shard."""

    def __init__(
        self,
        engine: Engine,
        identity: DataIdentity,
        plan: Plan,
        manifest: TokensManifest,
        tokens: ShardTokens,
        forward_batch: int,
    ) -> None:
        """Begin with `forward_batch` contexts in a forward pass."""
        self._engine = engine
        self._identity = identity
        self._plan = plan
        self._special = np.array(manifest.tokenizer.special, np.uint32)
        self._tokens = tokens
        self.forward_batch = forward_batch

    def capture(self, parts: Sequence[Part]) -> list[Captured]:
        """Run the model over parts, all in memory at once.

        Raises:
            KubesaeError: memory runs out even for one context at a time.

        """
        while True:
            try:
                return self._capture(parts)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.forward_batch == 1:
                    raise KubesaeError(
                        f"Memory ran out with one context of {self._plan.context} tokens in a forward pass. Give the "
                        "worker more memory, lower `context`, or capture fewer layers at once."
                    ) from error
            self.forward_batch //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _capture(self, parts: Sequence[Part]) -> list[Captured]:
        tars = {part: self._tars(part) for part in parts}
        context = self._plan.context
        pieces = [(part, *piece) for part in parts for piece in batches(part, context, self.forward_batch)]
        runs = self._engine.run([self._batch(*piece) for piece in pieces])
        for number, layer, output_BTD in runs:
            part, first, _, length = pieces[number]
            self._copy(output_BTD, tars[part][layer], first, length)
        return [self._captured(part, tars[part]) for part in parts]

    def _batch(self, part: Part, first: int, contexts: int, length: int) -> Batch:
        start = part.start + first
        ids_BT = self._tokens.ids[start : start + contexts * length].reshape(contexts, length)
        return Batch(ids_BT, self._documents(start, contexts, length))

    def _captured(self, part: Part, tars: dict[int, PartTar]) -> Captured:
        ids = self._tokens.ids[part.start : part.start + part.rows]
        positions = np.arange(part.rows) % self._plan.context
        return Captured(part, tars, ids, position_flags(ids, positions, self._special), self.forward_batch)

    def _tars(self, part: Part) -> dict[int, PartTar]:
        blocks = self._plan.blocks(part)
        documents = [self._tokens.documents(block.start, block.rows) for block in blocks]
        rows = [self._plan.global_row(part.shard, block.start) for block in blocks]
        return {
            layer: PartTar(
                blocks,
                documents,
                rows,
                layer=layer,
                d_model=self._identity.d_model,
                codec=codec(self._identity.storage),
            )
            for layer in self._identity.layers
        }

    def _documents(self, start: int, contexts: int, length: int) -> npt.NDArray[np.int64] | None:
        """Number of each token's document, [contexts, length]; None when attention crosses documents."""
        if self._identity.attention_across_documents:
            return None
        numbers = np.zeros(contexts * length, np.int64)
        for number, run in enumerate(self._tokens.documents(start, contexts * length)):
            numbers[run.start : run.start + run.tokens] = number + 1
        return numbers.reshape(contexts, length)

    def _copy(self, output_BTD: torch.Tensor, tar: PartTar, first: int, length: int) -> None:
        """Copy each context's activations, from row `first` of the part on, into the block that holds it."""
        for i, context_TD in enumerate(output_BTD):
            number, place = divmod((first + i * length) // self._plan.context, self._plan.contexts_per_block)
            row = place * self._plan.context
            tar.put(number, row, context_TD)
