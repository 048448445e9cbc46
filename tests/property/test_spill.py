"""Moving contexts through temporary files gives the bytes that picking each one by hand gives, in any small pieces."""

from __future__ import annotations

import io
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.experiment import sha256_hex
from kubesae.ledger import Plan, keys
from kubesae.prepare import spill
from kubesae.prepare.deal import Layout, Pool, deal
from kubesae.prepare.segments import PIECE_SCHEMA
from kubesae.store import open_store

if TYPE_CHECKING:
    import numpy.typing as npt

    from kubesae.store import Store

CONTEXT = 8
SCHEMA = pa.schema([*(field for field in PIECE_SCHEMA if field.name != "context"), ("corpus", pa.string())])


@pytest.fixture(autouse=True)
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read two contexts at a time, and write out after three pieces."""
    monkeypatch.setattr(spill, "_READ_BYTES", 2 * 4 * CONTEXT)
    monkeypatch.setattr(spill, "_PIECES_AT_ONCE", 3)


Segments = dict[tuple[int, int], tuple["npt.NDArray[np.uint32]", list[dict[str, object]]]]


def write_segments(store: Store, pools: list[Pool]) -> Segments:
    """Write segments of contexts in one or two pieces; return them."""
    made: Segments = {}
    for number, pool in enumerate(pools):
        for unit, size in enumerate(pool.sizes):
            ids = np.arange(size * CONTEXT, dtype=np.uint32).reshape(size, CONTEXT) + 1000 * unit + 100_000 * number
            pieces = []
            for context in range(size):
                cut = 1 + (context + unit) % CONTEXT
                for start, stop in ((0, cut), (cut, CONTEXT)):
                    if start < stop:
                        name = f"u{unit}:{(2 * context + (start > 0)) // 3}"
                        values = (context, start, stop - start, name, 5 * context + start, -1)
                        pieces.append(dict(zip(PIECE_SCHEMA.names, values, strict=True)))
            made[number, unit] = ids, pieces
            stem, out = keys.segment(pool.corpus, unit), io.BytesIO()
            np.save(out, ids, allow_pickle=False)
            store.put(f"{stem}.npy", out.getvalue())
            out = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(pieces, schema=PIECE_SCHEMA), out)
            store.put(f"{stem}.parquet", out.getvalue())
    return made


def by_hand(
    made: Segments, pools: list[Pool], order: npt.NDArray[np.int64], quota: int
) -> tuple[bytes, bytes, npt.NDArray[np.uint32]]:
    """Return the files of a shard whose contexts are `order`: ids, documents; and the ids."""
    ids = np.concatenate([made[c, u][0][i] for c, u, i in order.tolist()])[:quota]
    rows = []
    for place, (c, u, i) in enumerate(order.tolist()):
        for piece in made[c, u][1]:
            start = place * CONTEXT + int(str(piece["start"]))
            if piece["context"] == i and start < quota:
                tokens = min(int(str(piece["tokens"])), quota - start)
                rows.append(piece | {"start": start, "tokens": tokens, "corpus": pools[c].corpus})
    numbers, documents = io.BytesIO(), io.BytesIO()
    np.save(numbers, ids, allow_pickle=False)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), documents)
    return numbers.getvalue(), documents.getvalue(), ids


@st.composite
def deals(draw: st.DrawFn) -> tuple[list[Pool], list[int], Plan, set[int]]:
    sizes = st.lists(st.integers(0, 7), min_size=1, max_size=4).filter(any).map(tuple)
    pools = [Pool(f"c{i}", draw(sizes)) for i in range(draw(st.integers(1, 3)))]
    shards = draw(st.integers(1, 4))
    tokens = draw(st.integers(shards, max(shards, sum(pool.contexts for pool in pools) * CONTEXT // 2)))
    plan = Plan(tokens, shards, CONTEXT, 2, 1)
    left = sum(plan.contexts(shard) for shard in range(shards))
    wanted = []
    for pool in pools:
        wanted.append(min(left, pool.contexts))
        left -= wanted[-1]
    if left:
        pools.append(Pool("rest", (left,)))
        wanted.append(left)
    return pools, wanted, plan, draw(st.sets(st.integers(0, shards - 1)))


@given(deals(), st.integers(0, 3))
def test_the_bytes_are_those_of_picking_by_hand(drawn: tuple[list[Pool], list[int], Plan, set[int]], seed: int) -> None:
    pools, wanted, plan, shards = drawn
    order = deal(pools, wanted, seed)
    edges = np.cumsum([0, *(plan.contexts(shard) for shard in range(plan.num_shards))])
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        made = write_segments(store, pools)
        documents: dict[str, set[str]] = {}
        with spill.Spill(store, Layout(plan, order), pools, shards) as moved:
            for shard in range(plan.num_shards):
                numbers, table, ids = by_hand(made, pools, order[edges[shard] : edges[shard + 1]], plan.quota(shard))
                for row in pq.read_table(io.BytesIO(table)).to_pylist():
                    documents.setdefault(row["corpus"], set()).add(row["document"])
                if shard in shards:
                    found = moved.files(shard)
                    assert bytes(found.files[keys.tokens(shard)]) == numbers
                    assert bytes(found.files[keys.documents(shard)]) == table
                    assert found.info.sha256 == sha256_hex(ids.tobytes())
                    assert found.info.documents_sha256 == sha256_hex(table)
                    assert found.info.tokens == plan.quota(shard)
    counts = {corpus: count for corpus, count in moved.documents.items() if count}
    assert counts == {corpus: len(names) for corpus, names in documents.items()}


@given(deals(), st.integers(0, 3))
def test_tokens_of_a_corpus_are_what_its_contexts_hold_within_the_quotas(
    drawn: tuple[list[Pool], list[int], Plan, set[int]], seed: int
) -> None:
    pools, wanted, plan, _ = drawn
    layout = Layout(plan, deal(pools, wanted, seed))
    assert sum(layout.tokens(number) for number in range(len(pools))) == plan.tokens
    assert all(layout.tokens(number) <= count * CONTEXT for number, count in enumerate(wanted))
