"""Blocks of activations as numpy arrays, in a seeded order: what a training or an analysis of your own starts from.

    import kubesae
    reader = kubesae.open_reader("s3://bucket/prefix", layer=12)
    for position, block in enumerate(reader.blocks(epoch=0), start=1):
        x = block.float32()                        # [tokens, d_model]; block.tokens, block.flags, block.documents()

Needs numpy and pyarrow, not torch. Blocks are read ahead by ranged reads and checked. Where a reading is
in the data is two integers, epoch and position: to go on after a stop, give `blocks` both. Memory holds `ahead` blocks
and the one in hand, however large the data are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError
from kubesae.ledger import require_identity
from kubesae.parallel import in_order
from kubesae.shards.index import read_index
from kubesae.shards.order import permutation
from kubesae.shards.reader import read_block
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.shards.index import BlockRef
    from kubesae.shards.reader import BlockData
    from kubesae.store import Store


@dataclass(frozen=True)
class BlockReader:
    """Reads the blocks of one layer; `open_reader` makes it.

    Attributes:
        refs: the blocks, by row: `row` (global row of the first token), `rows`, `shard`, `part`, `tar`, `bytes`.
        d_model: width of the activations.
        dtype: dtype in which they are stored, as the experiment names it.
        shuffle: whether each epoch takes the blocks in another order.
        seed: of these orders.
        ahead: blocks that are read before they are asked for.

    """

    store: Store
    refs: tuple[BlockRef, ...]
    d_model: int
    dtype: str
    shuffle: bool
    seed: int
    ahead: int

    def __len__(self) -> int:
        """Return the number of blocks of an epoch."""
        return len(self.refs)

    @property
    def rows(self) -> int:
        """Tokens of an epoch."""
        return sum(ref.rows for ref in self.refs)

    def order(self, epoch: int = 0) -> list[BlockRef]:
        """Return the blocks of an epoch in the order in which they are read: by seed and epoch alone."""
        if not self.shuffle:
            return list(self.refs)
        return [self.refs[i] for i in permutation(len(self.refs), self.seed, epoch)]

    def blocks(self, epoch: int = 0, position: int = 0) -> Iterator[BlockData]:
        """Yield the blocks of an epoch after the first `position`.

        A block's arrays are its own: it may be kept, and costs its memory as long as it is.

        Raises:
            MissingError: a tar is not there.
            DamagedError: the bytes there are not the block.

        """
        read = partial(read_block, self.store)
        yield from in_order(read, self.order(epoch)[position:], self.ahead, ahead=self.ahead)


def open_reader(
    prefix: str,
    layer: int,
    *,
    shuffle: bool = True,
    seed: int = 0,
    shards: Sequence[int] | None = None,
    ahead: int = 2,
) -> BlockReader:
    """Return a reader of the committed blocks of a layer.

    Args:
        prefix: where the activations lie: a folder or `s3://bucket/prefix`.
        layer: the captured layer.
        shuffle: take the blocks of each epoch in a permutation by (seed, epoch); else by row.
        seed: of the permutation, 0 or more.
        shards: only these shards of the experiment (default: all).
        ahead: blocks to read before they are asked for, at least 1; each takes a thread and its bytes.

    Raises:
        ConfigError: there are no activations of that layer, or of none of the shards.

    """
    if ahead < 1:
        raise ConfigError(f"open_reader reads at least one block ahead, but ahead is {ahead}. Give 1 or more.")
    store = open_store(prefix)
    identity = require_identity(store)
    refs = tuple(ref for ref in read_index(store, identity, layer) if shards is None or ref.shard in shards)
    if not refs:
        raise ConfigError(
            f"There are no activations of shards {list(shards or ())} at {prefix}. Give some of shards 0 to "
            f"{identity.num_shards - 1}."
        )
    return BlockReader(store, refs, identity.d_model, identity.storage, shuffle, seed, ahead)
