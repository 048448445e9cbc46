"""The plan: which rows go into which shard, part, block and chunk. Every edge is defined here and nowhere else.

A *row* is one token's activation. Tokens are packed into contexts, contexts are dealt to shards, a run of contexts of a
shard is a part (one tar, the unit of commit), a run of contexts of a part is a block (one sample of the tar). The last
context of a shard is cut so that the shard's quota is exact. All of it is arithmetic on six numbers: nothing is read.

    >>> plan = Plan(tokens=1000, num_shards=2, context=64, contexts_per_part=4, contexts_per_block=2)
    >>> plan.quota(0), plan.parts(0), plan.part(0, 1)
    (500, 2, Part(shard=0, index=1, first_context=4, contexts=4, start=256, rows=244))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.experiment import DataIdentity, Experiment


@dataclass(frozen=True, slots=True)
class Block:
    """A run of contexts of one part: one sample of its tar. `start` counts rows from the beginning of the shard."""

    shard: int
    part: int
    index: int
    start: int
    rows: int

    @property
    def key(self) -> str:
        """The sample key in the tar, e.g. `s0003-p000007-b0012`. It holds no dot: WebDataset splits there."""
        return f"s{self.shard:04d}-p{self.part:06d}-b{self.index:04d}"


@dataclass(frozen=True, slots=True)
class Part:
    """A run of contexts of one shard: one tar a layer. `start` counts rows from the beginning of the shard."""

    shard: int
    index: int
    first_context: int
    contexts: int
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How `tokens` rows are laid out over shards, parts and blocks."""

    tokens: int
    num_shards: int
    context: int
    contexts_per_part: int
    contexts_per_block: int

    @classmethod
    def of(cls, data: DataIdentity | Experiment) -> Plan:
        """Return the plan of the data with this identity, or of the data that an experiment describes."""
        return cls(
            tokens=data.tokens,
            num_shards=data.num_shards,
            context=data.context,
            contexts_per_part=data.contexts_per_part,
            contexts_per_block=data.contexts_per_block,
        )

    def quota(self, shard: int) -> int:
        """Rows of `shard`: an equal share, the first shards taking one more where it does not divide."""
        share, rest = divmod(self.tokens, self.num_shards)
        return share + (shard < rest)

    def contexts(self, shard: int) -> int:
        """Contexts of `shard`, the cut one included."""
        return -(-self.quota(shard) // self.context)

    def parts(self, shard: int) -> int:
        """Parts of `shard`."""
        return -(-self.contexts(shard) // self.contexts_per_part)

    def part(self, shard: int, index: int) -> Part:
        """Part `index` of `shard`. Raises IndexError where there is none."""
        if not (0 <= shard < self.num_shards and 0 <= index < self.parts(shard)):
            raise IndexError(f"the plan has no part {index} in shard {shard}")
        first = index * self.contexts_per_part
        contexts = min(self.contexts_per_part, self.contexts(shard) - first)
        start = first * self.context
        rows = min(contexts * self.context, self.quota(shard) - start)
        return Part(shard, index, first, contexts, start, rows)

    def blocks(self, part: Part) -> list[Block]:
        """Blocks of `part`, in order."""
        step = self.contexts_per_block * self.context
        return [
            Block(part.shard, part.index, i, part.start + offset, min(step, part.rows - offset))
            for i, offset in enumerate(range(0, part.rows, step))
        ]

    def all_parts(self) -> Iterator[Part]:
        """Every part of the plan, by shard and index."""
        for shard in range(self.num_shards):
            for index in range(self.parts(shard)):
                yield self.part(shard, index)

    def global_row(self, shard: int, row: int) -> int:
        """Row of the whole data set of row `row` of `shard`: the same for every layer, fixed before anything runs."""
        share, rest = divmod(self.tokens, self.num_shards)
        return shard * share + min(shard, rest) + row

    def locate(self, global_row: int) -> tuple[int, int]:
        """Shard and row within it of `global_row`. Raises IndexError outside the data."""
        if not 0 <= global_row < self.tokens:
            raise IndexError(f"row {global_row} is outside the data (rows 0 to {self.tokens - 1})")
        share, rest = divmod(self.tokens, self.num_shards)
        if global_row < rest * (share + 1):
            return divmod(global_row, share + 1)
        shard, row = divmod(global_row - rest * (share + 1), share)
        return rest + shard, row

    def rows_before(self, shard: int, parts: int) -> int:
        """Rows in the first `parts` parts of `shard`."""
        return min(parts * self.contexts_per_part * self.context, self.quota(shard))

    def pilot_parts(self, tokens: int) -> int:
        """Parts of shard 0 that make the pilot: up to the first part edge at or after `tokens`."""
        return min(self.parts(0), -(-tokens // (self.contexts_per_part * self.context)))


def chunk_edges(total: int, chunk: int) -> list[int]:
    """Where the chunks of `total` rows end. A chunk only counts: no stored key holds one."""
    return [*range(chunk, total, chunk), total]


def chunks_done(rows: int, total: int, chunk: int) -> int:
    """How many chunks of `total` rows are complete when `rows` are committed."""
    return -(-total // chunk) if rows >= total else rows // chunk


def share_of(units: int, index: int, of: int) -> range:
    """The units that worker `index` of `of` works through: index, index + of, index + 2 of, ..."""
    return range(index, units, of)
