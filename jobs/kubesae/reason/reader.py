"""Features of token sequences, by one forward pass through the first layers: no head, no generation.

    for found in reader.read([ids_T, ...]):
        found.flags_T, found.token_N, found.feature_N, found.value_N

Sequences are batched only with others of their length: nothing is padded, so a sequence's features do not depend on
what it is read with but for rounding. Legend: T tokens of a sequence, N entries of its sparse code, D d_model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from kubesae.model.inputs import Batch
from kubesae.shards.flags import outlier_flags, position_flags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from kubesae.experiment import Experiment
    from kubesae.model import ModelSource
    from kubesae.sae import Sae

    Ids = npt.NDArray[np.uint32]

BATCH = 16
"""sequences of one forward pass"""
_TOKENS = 1 << 16
"""tokens of one call of the engine: the streamed one holds hidden states of all of them, and loads each layer once"""


class Engine(Protocol):
    """What runs the model: the engines of collection, or a whole model that stops early."""

    def run(self, batches: Sequence[Batch]) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield number of the batch, layer and output [B, T, D], of each batch and captured layer, in any order."""


@dataclass(frozen=True, slots=True)
class Found:
    """Features of one sequence.

    Attributes:
        flags_T: uint8 [T], the flags of collection: first position, special token, norm outlier.
        token_N: int64 [N], the position of each entry, ascending; of unflagged tokens and flagged ones.
        feature_N: int64 [N], its feature.
        value_N: float32 [N], its activation, above 0.

    """

    flags_T: npt.NDArray[np.uint8]
    token_N: npt.NDArray[np.int64]
    feature_N: npt.NDArray[np.int64]
    value_N: npt.NDArray[np.float32]

    def unflagged(self) -> npt.NDArray[np.bool_]:
        """Return which entries are of unflagged tokens, [N]."""
        return np.asarray(self.flags_T[self.token_N] == 0)


@dataclass(frozen=True)
class Reader:
    """Reads sequences with an engine whose captured layer is the SAE's; `special`: ids of special tokens."""

    engine: Engine
    sae: Sae
    special: npt.NDArray[np.uint32]
    batch: int = BATCH

    def read(self, sequences: Sequence[Ids]) -> list[Found]:
        """Return the features of each sequence, in order; an empty one has none."""
        found: dict[int, Found] = {}
        self.each(sequences, found.__setitem__)
        empty = self._found(np.zeros(0, np.uint32), torch.zeros(0, self.sae.config.d_model))
        return [found.get(number, empty) for number in range(len(sequences))]

    def each(self, sequences: Sequence[Ids], take: Callable[[int, Found], None]) -> None:
        """Call `take` with the number of each sequence that is not empty and its features, in any order."""
        waiting: list[list[int]] = []
        tokens = 0
        for group in self._groups(sequences):
            waiting.append(group)
            tokens += len(group) * len(sequences[group[0]])
            if tokens >= _TOKENS:
                self._run(sequences, waiting, take)
                waiting, tokens = [], 0
        self._run(sequences, waiting, take)

    def outputs(self, sequences: Sequence[Ids]) -> list[torch.Tensor]:
        """Return the layer's output [T, D] on each sequence; none may be empty."""
        groups = list(self._groups(sequences))
        batches = [Batch(np.stack([sequences[number] for number in group])) for group in groups]
        found = {
            number: x_TD
            for place, _, x_BTD in self.engine.run(batches)
            for number, x_TD in zip(groups[place], x_BTD, strict=True)
        }
        return [found[number] for number in range(len(sequences))]

    def _groups(self, sequences: Sequence[Ids]) -> Iterator[list[int]]:
        by_length: dict[int, list[int]] = {}
        for number, ids_T in enumerate(sequences):
            if len(ids_T):
                by_length.setdefault(len(ids_T), []).append(number)
        for length in sorted(by_length):
            numbers = by_length[length]
            yield from (numbers[at : at + self.batch] for at in range(0, len(numbers), self.batch))

    def _run(self, sequences: Sequence[Ids], groups: Sequence[list[int]], take: Callable[[int, Found], None]) -> None:
        if not groups:
            return
        batches = [Batch(np.stack([sequences[number] for number in group])) for group in groups]
        for place, _, x_BTD in self.engine.run(batches):
            for number, x_TD in zip(groups[place], x_BTD, strict=True):
                take(number, self._found(sequences[number], x_TD))

    def _found(self, ids_T: Ids, x_TD: torch.Tensor) -> Found:
        x_TD = x_TD.float()
        flags_T = flags_of(ids_T, x_TD, np.arange(len(ids_T)), self.special)
        return Found(flags_T, *entries(self.sae, x_TD))


def entries(
    sae: Sae, x_ND: torch.Tensor
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return row, feature and activation of each active feature of activations [N, D], by row."""
    code = sae.codes(x_ND.to(sae.weights.b_dec_D.device).float())
    row_N, feature_N, value_N = (part.cpu().numpy() for part in (code.rows_N, code.features_N, code.values_N))
    active = value_N > 0
    return row_N[active], feature_N[active], value_N[active].astype(np.float32)


def flags_of(
    ids_T: Ids, x_TD: torch.Tensor, position_T: npt.NDArray[np.int64], special: npt.NDArray[np.uint32]
) -> npt.NDArray[np.uint8]:
    """Return the flags of rows as collection sets them; norm outliers are told from the median of these rows."""
    flags_T = position_flags(ids_T, position_T, special)
    norms_T = torch.linalg.vector_norm(x_TD.float(), dim=1).cpu().numpy()
    return flags_T | outlier_flags(norms_T, flags_T)


def load_reader(experiment: Experiment, source: ModelSource, layer: int, sae: Sae, special: Sequence[int]) -> Reader:
    """Load the model as deep as `layer`, with the experiment's engine.

    Raises:
        ConfigError: the weights cannot be loaded.
        HubError: the hub does not answer.
        KubesaeError: they do not fit into memory.

    """
    wanted = source, (layer,), experiment.model_dtype, experiment.collect.device
    engine: Engine
    if experiment.collect.engine == "streamed":
        from kubesae.model.streamed import StreamedEngine  # noqa: PLC0415 - needs greenlet

        engine = StreamedEngine.load(*wanted, experiment.collect.weights)
    else:
        from kubesae.model.replicas import load_resident  # noqa: PLC0415 - only where it is used

        engine = load_resident(*wanted)
    return Reader(engine, sae, np.array(special, np.uint32))
