"""Third step of prepare: move contexts from segments to shards, each read once and written twice, in bounded memory.

Segments are read one after the other, a piece at a time. What goes to a shard is appended to that shard's region of a
temporary file; then shard by shard is put in order and given out. Memory holds a piece of a segment or one shard; the
disk ($TMPDIR) holds what is dealt, 4 bytes a token, once.
"""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kubesae.corpus import ShardInfo
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.prepare.segments import PIECE_SCHEMA, StoredSegment
from kubesae.store.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from types import TracebackType

    from kubesae.prepare.deal import Layout, Pool, Share
    from kubesae.store import Buffer, Store

_READ_BYTES = 32 << 20
_PIECES_AT_ONCE = 1 << 18

_SCHEMA = pa.schema([*(field for field in PIECE_SCHEMA if field.name != "context"), ("corpus", pa.string())])


@dataclass(frozen=True)
class ShardFiles:
    """The token files of a shard: their bytes by key, and what the manifest says of them."""

    files: dict[str, Buffer]
    info: ShardInfo


class Spill:
    """The contexts and pieces of some shards in temporary files. A context manager: at its end they are gone.

    with Spill(store, layout, pools, shards) as spill:
        for shard in shards:
            spill.files(shard)
    """

    def __init__(self, store: Store, layout: Layout, pools: Sequence[Pool], shards: Collection[int]) -> None:
        """Take what `layout` deals of `pools`, whose segments lie in `store`, to these shards."""
        self._store, self._layout, self._pools = store, layout, pools
        self._plan = layout.plan
        self._wanted = np.isin(np.arange(self._plan.num_shards), list(shards))
        contexts = [self._plan.contexts(shard) * bool(w) for shard, w in enumerate(self._wanted)]
        self._next = np.cumsum([0, *contexts])  # in contexts: where the next one of each shard goes
        self._first = self._next.copy()
        self._batches: list[list[int]] = [[] for _ in contexts]
        self._written = 0
        self.documents: dict[str, int] = {}
        """distinct documents that all shards have of each corpus"""

    def __enter__(self) -> Self:
        """Read all segments."""
        self._folder = tempfile.TemporaryDirectory(prefix="kubesae-")
        try:
            with disk_errors(self._folder.name):
                self._fill(Path(self._folder.name))
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the temporary files."""
        self._folder.cleanup()

    def files(self, shard: int) -> ShardFiles:
        """Return the files of one of the shards."""
        folder = Path(self._folder.name)
        with disk_errors(self._folder.name):
            ids_file, digest = self._ids(folder / "ids", shard)
            documents_file = io.BytesIO()
            pq.write_table(self._documents(folder / "pieces", shard), documents_file)
        return ShardFiles(
            {keys.tokens(shard): ids_file, keys.documents(shard): documents_file.getbuffer()},
            ShardInfo(
                tokens=self._plan.quota(shard),
                sha256=digest,
                documents_sha256=sha256_hex(documents_file.getbuffer()),
            ),
        )

    def _fill(self, folder: Path) -> None:
        waiting: list[pa.Table] = []
        with (folder / "ids").open("wb") as ids, pa.ipc.new_file(str(folder / "pieces"), _SCHEMA) as pieces:
            for share in self._layout.segments():
                pool = self._pools[share.corpus]
                segment = StoredSegment(self._store, pool.corpus, share.unit)
                self._spill_ids(ids.fileno(), segment, share, pool.sizes[share.unit])
                waiting.append(self._placed(segment.pieces(), share, pool.corpus))
                if sum(map(len, waiting)) >= _PIECES_AT_ONCE:
                    self._spill_pieces(pieces, pa.concat_tables(waiting))
                    waiting.clear()
            if waiting:
                self._spill_pieces(pieces, pa.concat_tables(waiting))

    def _spill_ids(self, file: int, segment: StoredSegment, share: Share, size: int) -> None:
        """Append the contexts of a segment that are dealt to our shards, each to its shard's region."""
        ours = self._wanted[share.shard]
        contexts, shards = share.context[ours], share.shard[ours]
        width = self._plan.context
        step = max(1, _READ_BYTES // (4 * width))
        for first in range(0, size, step):
            here = slice(*np.searchsorted(contexts, [first, first + step]))
            if here.start == here.stop:
                continue
            rows = np.empty((min(step, size - first), width), "<u4")
            segment.read_into(first, rows, width, size)
            for shard, chosen in _by_shard(shards[here]):
                data = rows[contexts[here][chosen] - first]
                os.pwrite(file, memoryview(data).cast("B"), int(self._next[shard]) * 4 * width)
                self._next[shard] += len(chosen)

    def _placed(self, pieces: pa.Table, share: Share, corpus: str) -> pa.Table:
        """Return the pieces of a segment that are dealt to our shards, with their shard, `start` a row of it."""
        at = np.searchsorted(share.context, pieces["context"].to_numpy())
        dealt = at < len(share.context)
        dealt[dealt] = share.context[at[dealt]] == pieces["context"].to_numpy()[dealt]
        pieces, at = pieces.filter(pa.array(dealt)), at[dealt]
        shard = share.shard[at]
        start = share.place[at] * self._plan.context + pieces["start"].to_numpy()
        within = start < np.array([self._plan.quota(s) for s in range(self._plan.num_shards)])[shard]
        used = pc.count_distinct(pieces["document"].filter(pa.array(within))).as_py()
        self.documents[corpus] = self.documents.get(corpus, 0) + used
        ours = within & self._wanted[shard]
        kept = pieces.drop_columns(["context"]).set_column(0, "start", pa.array(start)).filter(pa.array(ours))
        kept = kept.append_column("corpus", pa.repeat(corpus, len(kept)))
        return kept.append_column("shard", pa.array(shard[ours]))

    def _spill_pieces(self, writer: pa.ipc.RecordBatchFileWriter, pieces: pa.Table) -> None:
        for shard, chosen in _by_shard(pieces["shard"].to_numpy()):
            for batch in pieces.drop_columns(["shard"]).take(pa.array(chosen)).to_batches():
                writer.write_batch(batch)
                self._batches[shard].append(self._written)
                self._written += 1

    def _ids(self, file: Path, shard: int) -> tuple[memoryview, str]:
        """Return the npy file of a shard's token ids, uint32 [quota], and the SHA-256 of the ids alone."""
        quota, width = self._plan.quota(shard), self._plan.context
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<u4", "fortran_order": False, "shape": (quota,)})
        places = self._layout.places(shard)
        out = np.empty(head.tell() + 4 * width * len(places), np.uint8)
        out[: head.tell()] = np.frombuffer(head.getvalue(), np.uint8)
        contexts = out[head.tell() :].view("<u4").reshape(-1, width)
        step = max(1, _READ_BYTES // (4 * width))
        with file.open("rb") as spilled:
            spilled.seek(int(self._first[shard]) * 4 * width)
            for first in range(0, len(places), step):
                here = places[first : first + step]
                contexts[here] = np.fromfile(spilled, "<u4", len(here) * width).reshape(-1, width)
        stop = head.tell() + 4 * quota
        return memoryview(out)[:stop], sha256_hex(memoryview(out)[head.tell() : stop])

    def _documents(self, file: Path, shard: int) -> pa.Table:
        """Return where a shard's tokens came from, in order; the last piece is cut at the quota."""
        with pa.ipc.open_file(pa.OSFile(str(file))) as reader:
            batches = [reader.get_batch(number) for number in self._batches[shard]]
        documents = pa.Table.from_batches(batches, _SCHEMA).sort_by("start")
        room = pc.subtract(pa.scalar(self._plan.quota(shard), pa.int64()), documents["start"])
        tokens = pc.min_element_wise(documents["tokens"], room)
        return documents.set_column(documents.schema.get_field_index("tokens"), "tokens", tokens)


def _by_shard(shards: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each shard that there is among `shards`, and where, ascending."""
    order = np.argsort(shards, kind="stable")
    found, starts = np.unique(shards[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]) if len(found) else [], strict=True)
