"""Which blocks are trained on and which are kept for validation.

Blocks are sorted by the SHA-256 of `<identity>/<sample key>`: an order that depends on the data alone, not on where it
lies, who collected it or in which order. The first ceil(share) of them, at least 2, are validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError
from kubesae.experiment import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.shards.index import BlockRef

_AT_LEAST = 2


@dataclass(frozen=True, slots=True)
class Split:
    """Blocks to train on, by row, and blocks to validate on."""

    train: tuple[BlockRef, ...]
    validation: tuple[BlockRef, ...]

    @property
    def train_rows(self) -> int:
        """Rows to train on, flagged ones included."""
        return sum(ref.rows for ref in self.train)

    @property
    def validation_rows(self) -> int:
        """Rows to validate on, flagged ones included."""
        return sum(ref.rows for ref in self.validation)


def split_blocks(refs: Sequence[BlockRef], identity: str, share: float, max_tokens: int | None = None) -> Split:
    """Split the blocks of a layer.

    With `max_tokens`, validation comes from the front of the order and training from its end, so that a short run never
    trains on what the full run validates on.

    Raises:
        ConfigError: there are too few blocks to keep two apart.

    """
    ordered = sorted(refs, key=lambda ref: sha256_hex(f"{identity}/{ref.key}".encode()))
    count = len(ordered) if max_tokens is None else _blocks_for(ordered, max_tokens)
    validation = max(_AT_LEAST, math.ceil(share * count))
    if count <= validation:
        raise ConfigError(
            f"{count} blocks are too few to train on: {validation} are kept for validation. Use more tokens, or lower "
            "contexts_per_block when collecting."
        )
    train = ordered[len(ordered) - (count - validation) :]
    return Split(tuple(sorted(train)), tuple(sorted(ordered[:validation])))


def _blocks_for(ordered: Sequence[BlockRef], rows: int) -> int:
    """Return how many blocks, counted from the end, have at least `rows` rows."""
    total = 0
    for count, ref in enumerate(reversed(ordered), start=1):
        total += ref.rows
        if total >= rows:
            return max(count, _AT_LEAST + 1)
    return len(ordered)
