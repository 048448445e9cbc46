"""The index: one row a block, so that a reader of a whole data set starts with one GET.

`verify --scope all` writes it. Where there is none yet (a pilot, a run still going on), the same rows come from the
commit records, one small GET each.
"""

from __future__ import annotations

import io
from dataclasses import astuple, dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.ledger import Plan, keys, read_record, record_list
from kubesae.parallel import READERS, in_order
from kubesae.shards.layout import END_OF_ARCHIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.experiment import DataIdentity
    from kubesae.ledger import Record
    from kubesae.store import Store

_IDENTITY = b"kubesae.identity"


@dataclass(frozen=True, slots=True, order=True)
class BlockRef:
    """Where one block of one layer lies. `row` is the global row of its first token."""

    layer: int
    row: int
    rows: int
    shard: int
    part: int
    block: int
    key: str
    tar: str
    offset: int
    bytes: int


def blocks_of(record: Record, plan: Plan) -> list[BlockRef]:
    """Blocks that a commit record names, by layer and row.

    Raises:
        DamagedError: the record does not fit the plan.

    """
    try:
        part = plan.part(record.shard, record.part)
    except IndexError as error:
        raise DamagedError(f"A record of other data: {error}. Run `kubesae verify`.") from error
    blocks, refs = plan.blocks(part), []
    for layer in record.layers:
        ends = [*layer.blocks[1:], layer.bytes - END_OF_ARCHIVE]
        complete = len(layer.blocks) == len(blocks) and layer.blocks[0] == 0
        if not complete or any(end <= start for start, end in zip(layer.blocks, ends, strict=True)):
            raise DamagedError(
                f"The record of shard {part.shard}, part {part.index} has {len(layer.blocks)} blocks of layer "
                f"{layer.layer} in {layer.bytes} bytes; the plan has {len(blocks)} blocks. Run `kubesae verify`."
            )
        for block, start, end in zip(blocks, layer.blocks, ends, strict=True):
            row = plan.global_row(part.shard, block.start)
            refs.append(
                BlockRef(
                    layer.layer, row, block.rows, part.shard, part.index, block.index, block.key, layer.key, start,
                    end - start,
                )
            )  # fmt: skip
    return refs


def layer_blocks(record: Record, plan: Plan, layer: int) -> list[BlockRef]:
    """Blocks of one layer that a commit record names, by row.

    Raises:
        DamagedError: the record does not fit the plan, or does not have the layer.

    """
    refs = [ref for ref in blocks_of(record, plan) if ref.layer == layer]
    if not refs:
        raise DamagedError(
            f"The record of shard {record.shard}, part {record.part} lacks layer {layer}. Run `kubesae verify`."
        )
    return refs


def write_index(store: Store, identity: DataIdentity, refs: Iterable[BlockRef]) -> None:
    """Write `activations/index.parquet`, and for each layer the list of its tars' URLs."""
    import pyarrow as pa  # noqa: PLC0415 - an extra: only batch programs have it
    import pyarrow.parquet as pq  # noqa: PLC0415

    ordered = sorted(refs)
    names = [field.name for field in fields(BlockRef)]
    columns = list(zip(*map(astuple, ordered), strict=True)) or [()] * len(names)
    table = pa.table(dict(zip(names, map(list, columns), strict=True)))
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_IDENTITY: identity.sha256.encode()}), out)
    store.put(keys.INDEX, out.getvalue())
    for layer in identity.layers:
        tars = dict.fromkeys(ref.tar for ref in ordered if ref.layer == layer)
        store.put(keys.layer_urls(layer), "".join(f"{store.url}/{tar}\n" for tar in tars).encode())


def read_index(store: Store, identity: DataIdentity, layer: int) -> list[BlockRef]:
    """Blocks of one layer in row order, from the index or else from the records.

    Raises:
        ConfigError: the layer was not collected, or nothing has been committed yet.
        DamagedError: the index belongs to other data.

    """
    identity.check_layer(layer, store.url)
    try:
        data = store.read(keys.INDEX)
    except MissingError:
        refs = _from_records(store, identity, layer)
    else:
        refs = _from_parquet(data, identity, layer, f"{store.url}/{keys.INDEX}")
    if not refs:
        raise ConfigError(f"No activations are committed at {store.url}. Run `kubesae collect` first.")
    return refs


def _from_records(store: Store, identity: DataIdentity, layer: int) -> list[BlockRef]:
    plan = Plan.of(identity)

    def read(key: str) -> list[BlockRef]:
        shard, part = keys.parse_record(key) or (-1, -1)
        record = read_record(store, shard, part)
        record.check_place(identity.sha256, shard, part, store.url_of(key))
        return layer_blocks(record, plan, layer)

    return sorted(chain.from_iterable(in_order(read, record_list(store), READERS)))


def _from_parquet(data: bytes, identity: DataIdentity, layer: int, where: str) -> list[BlockRef]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra: only batch programs have it

    try:
        table = pq.read_table(io.BytesIO(data), filters=[("layer", "==", layer)])
        refs = [BlockRef(**row) for row in table.to_pylist()]
        found = (table.schema.metadata or {}).get(_IDENTITY, b"").decode()
    except Exception as error:  # for damaged bytes Arrow raises a dozen kinds, none a fault of ours
        raise DamagedError(f"{where} is not an index ({error}). Run `kubesae repair` to write it anew.") from error
    if found != identity.sha256:
        raise DamagedError(
            f"{where} is the index of data with identity {found[:12] or 'unknown'}, but the data here has "
            f"{identity.sha256[:12]}. Run `kubesae repair` to write it anew."
        )
    return refs
