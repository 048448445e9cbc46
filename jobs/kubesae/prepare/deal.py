"""Second step of prepare: deal packed contexts to shards by a seeded permutation.

Every part of every shard then has the mixture of the corpora, and the pilot is representative. Which contexts are taken
is arithmetic on counts; only then are segments read, one at a time, once for each shard.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kubesae.corpus import ShardInfo
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.prepare.segments import read_segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.ledger import Plan
    from kubesae.store import Store

_DEAL = 2  # streams of the experiment's seed: 1 orders files, 2 deals


@dataclass(frozen=True, slots=True)
class Pool:
    """The tokenised contexts of one corpus: `sizes[u]` contexts in unit `u`."""

    corpus: str
    sizes: tuple[int, ...]

    @property
    def contexts(self) -> int:
        """Contexts in all units."""
        return sum(self.sizes)


def split_by_weight(total: int, weights: Sequence[float]) -> list[int]:
    """Split `total` in proportion to `weights`, exactly: largest remainders first, ties to the earlier one."""
    shares = [total * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(weights)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def deal(pools: Sequence[Pool], wanted: Sequence[int], seed: int) -> npt.NDArray[np.int64]:
    """Choose and order contexts: int64 [sum(wanted), 3] of corpus, unit and context of the unit."""
    generator = np.random.Generator(np.random.PCG64([seed, _DEAL]))
    chosen = []
    for number, (pool, count) in enumerate(zip(pools, wanted, strict=True)):
        sizes = np.array(pool.sizes, np.int64)  # empty where the weight gives the corpus no context
        unit = np.repeat(np.arange(len(sizes)), sizes)
        context = np.arange(pool.contexts) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        take = np.sort(generator.permutation(pool.contexts)[:count])
        chosen.append(np.stack([np.full(count, number), unit[take], context[take]], axis=1))
    contexts: npt.NDArray[np.int64] = np.concatenate(chosen).astype(np.int64)
    return contexts[generator.permutation(len(contexts))]


@dataclass(frozen=True)
class ShardFiles:
    """The token files of a shard: their bytes by key, what the manifest says of them, and where tokens came from."""

    files: dict[str, memoryview]
    info: ShardInfo
    documents: pa.Table


def shard_files(
    store: Store, plan: Plan, shard: int, contexts: npt.NDArray[np.int64], pools: Sequence[Pool]
) -> ShardFiles:
    """Make a shard's token ids and the table of where they came from.

    Args:
        store: the data store, which holds the segments.
        plan: the plan.
        shard: the shard.
        contexts: int64 [contexts, 3] from `deal`: this shard's, in order.
        pools: the pools that `contexts` counts by.

    """
    ids = np.zeros((len(contexts), plan.context), np.uint32)
    tables = []
    for number, unit in sorted({(int(c), int(u)) for c, u, _ in contexts}):
        here = np.flatnonzero((contexts[:, 0] == number) & (contexts[:, 1] == unit))
        segment, pieces = read_segment(store, pools[number].corpus, unit)
        ids[here] = segment[contexts[here, 2]]
        tables.append(_place(pieces, dict(zip(contexts[here, 2].tolist(), here.tolist(), strict=True)), plan.context))
        tables[-1] = tables[-1].append_column("corpus", pa.repeat(pools[number].corpus, len(tables[-1])))
    rows = np.ascontiguousarray(ids.reshape(-1)[: plan.quota(shard)], dtype="<u4")
    ids_file, documents_file = io.BytesIO(), io.BytesIO()
    np.save(ids_file, rows, allow_pickle=False)
    documents = _cut(pa.concat_tables(tables).sort_by("start"), plan.quota(shard))
    pq.write_table(documents, documents_file)
    info = ShardInfo(
        tokens=len(rows),
        sha256=sha256_hex(memoryview(rows).cast("B")),
        documents_sha256=sha256_hex(documents_file.getbuffer()),
    )
    files = {keys.tokens(shard): ids_file.getbuffer(), keys.documents(shard): documents_file.getbuffer()}
    return ShardFiles(files, info, documents)


def _place(pieces: pa.Table, position: dict[int, int], context: int) -> pa.Table:
    """Pieces of the dealt contexts, their `start` turned into the row of the shard."""
    kept = pieces.filter(pc.is_in(pieces["context"], pa.array(position, pa.int64())))
    base = np.array([position[c] * context for c in kept["context"].to_pylist()], np.int64)
    start = pa.array(base + kept["start"].to_numpy())
    return kept.drop_columns(["context"]).set_column(0, "start", start)


def _cut(documents: pa.Table, quota: int) -> pa.Table:
    """Drop and shorten pieces beyond the shard's quota."""
    kept = documents.filter(pc.less(documents["start"], quota))
    room = pc.subtract(pa.scalar(quota, pa.int64()), kept["start"])
    tokens = pc.min_element_wise(kept["tokens"], room)
    return kept.set_column(kept.schema.get_field_index("tokens"), "tokens", tokens)
