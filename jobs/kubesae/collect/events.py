"""What collection tells its surroundings, and the lines of its log.

`Shard 0: 5,000,000 tokens collected` counts the committed tokens of the shard; a chunk is saved once the committed
tokens reach its nominal end (k x chunk, or the shard's quota).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.ledger import chunk_edges

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.ledger import Record


class Events:
    """Turns events of collection into lines. Called from the worker's threads, one shard at a time."""

    def __init__(self, say: Callable[[str], None], chunk: int) -> None:
        """`say` takes a line; `chunk` is the number of tokens of a chunk."""
        self._say = say
        self._chunk = chunk
        self._edges: list[int] = []
        self._saved = 0

    def loading(self, shard: int) -> None:
        """The model is being loaded."""
        self._say(f"Shard {shard}: Loading model...")

    def loaded(self, shard: int) -> None:
        """The model is there."""
        self._say(f"Shard {shard}: Model loaded successfully")

    def start(self, shard: int, rows: int, total: int) -> None:
        """A shard begins with `rows` of its `total` committed."""
        self._edges = chunk_edges(total, self._chunk)
        self._saved = sum(edge <= rows for edge in self._edges)
        if rows:
            self._say(f"Shard {shard}: Resuming after {rows:,} tokens")

    def stored(self, record: Record) -> None:
        """A part is committed; of no interest to the log, where chunks count."""

    def waiting(self, parts: int) -> None:
        """So many parts wait for their upload; of no interest to the log either."""

    def committed(self, shard: int, rows: int) -> None:
        """The first `rows` of the shard are committed."""
        while self._saved < len(self._edges) and rows >= self._edges[self._saved]:
            self._say(f"Shard {shard}: {self._edges[self._saved]:,} tokens collected")
            self._say(f"Shard {shard}: Saved chunk {self._saved}")
            self._saved += 1

    def complete(self, shard: int) -> None:
        """The shard is collected: chunks after a gap that was filled just now are saved too."""
        self.committed(shard, self._edges[-1])
        self._say(f"Shard {shard}: Collection complete!")

    def nothing_to_do(self, shard: int) -> None:
        """The shard was collected before."""
        self._say(f"Shard {shard}: Collection complete! (collected before)")
