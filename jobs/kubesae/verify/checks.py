"""The checks of one part: what its record says against what plan, listing and bytes say. Pure but for reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import Finding, keys
from kubesae.shards import FLAGS, Moments, blocks_of, codec, outlier_flags, parse_block, position_flags

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from kubesae.corpus import ShardTokens, TokensManifest
    from kubesae.experiment import DataIdentity
    from kubesae.ledger import LayerRecord, Plan, Record
    from kubesae.shards import BlockRef
    from kubesae.store import ObjectInfo, Store

TAR_END = bytes(1024)


@dataclass
class Context:
    """What checks are made against: the identity and plan, and the listing of all objects below `activations/`."""

    store: Store
    identity: DataIdentity
    plan: Plan
    manifest: TokensManifest
    objects: Mapping[str, ObjectInfo]
    moments: dict[int, Moments] = field(default_factory=dict)

    def url(self, key: str) -> str:
        """URL of an object."""
        return f"{self.store.url}/{key}"


def check_record(context: Context, record: Record, key: str, tokens: ShardTokens) -> Iterator[Finding]:
    """Check one record against identity, plan, token ids and listing; opens no tar."""
    shard, part_number = keys.parse_record(key) or (-1, -1)
    if record.identity != context.identity.sha256:
        yield Finding(kind="forged record", key=key, detail=f"names identity {record.identity[:12]}")
    if (record.shard, record.part) != (shard, part_number):
        yield Finding(
            kind="misplaced record", key=key, detail=f"is the record of shard {record.shard}, part {record.part}"
        )
        return
    try:
        part = context.plan.part(shard, part_number)
    except IndexError:
        yield Finding(kind="foreign record", key=key, detail="the plan has no such part")
        return
    if record.rows != part.rows:
        yield Finding(kind="wrong row count", key=key, detail=f"{record.rows} rows, the plan has {part.rows}")
    ids = tokens.ids[part.start : part.start + part.rows]
    if record.tokens_sha256 != sha256_hex(memoryview(ids).cast("B")):
        yield Finding(kind="wrong tokens", key=key, detail="the digest of its token ids is not that of the plan's")
    if tuple(layer.layer for layer in record.layers) != context.identity.layers:
        yield Finding(
            kind="wrong layers",
            key=key,
            detail=f"has layers {[layer.layer for layer in record.layers]}, not {list(context.identity.layers)}",
        )
    try:
        blocks_of(record, context.plan)
    except DamagedError as error:
        yield Finding(kind="wrong blocks", key=key, detail=str(error))
    for layer in record.layers:
        if layer.key != keys.tar(layer.layer, shard, part_number, layer.sha256[:12]):
            yield Finding(kind="foreign tar", key=key, detail=f"names {layer.key} as the tar of layer {layer.layer}")
        yield from _check_objects(context, layer)


def _check_objects(context: Context, layer: LayerRecord) -> Iterator[Finding]:
    info = context.objects.get(layer.key)
    if info is None:
        yield Finding(kind="missing tar", key=layer.key, detail="the record names it, the store does not have it")
    elif info.size > layer.bytes:
        yield Finding(kind="changed tar", key=layer.key, detail=f"{info.size} bytes, the record says {layer.bytes}")
    elif info.size < layer.bytes:
        yield Finding(kind="truncated tar", key=layer.key, detail=f"{info.size} bytes, the record says {layer.bytes}")
    if layer.moments not in context.objects:
        yield Finding(kind="missing moments", key=layer.moments, detail="the record names it, the store lacks it")


def check_bytes(context: Context, record: Record, tokens: ShardTokens) -> Iterator[Finding]:
    """Read every byte of a part's tars: digest, members, shapes, token ids, flags, finite values."""
    part = context.plan.part(record.shard, record.part)
    ids = tokens.ids[part.start : part.start + part.rows]
    refs = blocks_of(record, context.plan)
    for layer in record.layers:
        try:
            data = context.store.read(layer.key)
        except MissingError:
            continue  # named by `check_record`
        if sha256_hex(data) != layer.sha256:
            yield Finding(kind="changed tar", key=layer.key, detail="its SHA-256 is not the record's")
            continue
        try:
            yield from _check_blocks(context, layer, data, [ref for ref in refs if ref.layer == layer.layer], ids)
        except DamagedError as error:
            yield Finding(kind="malformed tar", key=layer.key, detail=str(error))


def _check_blocks(
    context: Context, layer: LayerRecord, data: bytes, refs: list[BlockRef], ids: npt.NDArray[np.uint32]
) -> Iterator[Finding]:
    view, at, norms, flags = memoryview(data), 0, [], []
    d_model, special = context.identity.d_model, np.array(context.manifest.tokenizer.special, np.uint32)
    for ref in refs:
        block = parse_block(view[ref.offset : ref.offset + ref.bytes], context.url(layer.key))
        if (block.key, block.row, block.meta["layer"]) != (ref.key, ref.row, layer.layer):
            yield Finding(kind="wrong block", key=layer.key, detail=f"{block.key} stands where {ref.key} should")
        if block.acts.shape != (ref.rows, d_model) or block.dtype != context.identity.storage:
            shape = (*block.acts.shape, block.dtype)
            yield Finding(kind="wrong shape", key=layer.key, detail=f"{ref.key} has {shape}, not {ref.rows, d_model}")
            return
        if not np.array_equal(block.tokens, ids[at : at + ref.rows]):
            yield Finding(kind="wrong tokens", key=layer.key, detail=f"{ref.key} has other token ids than the plan")
        x = codec(block.dtype).to_float32(block.acts)
        norms.append(np.sqrt(np.einsum("rd,rd->r", x, x)))
        flags.append(block.flags)
        at += ref.rows
    if bytes(view[-len(TAR_END) :]) != TAR_END:
        yield Finding(kind="malformed tar", key=layer.key, detail="it does not end as a tar does")
    yield from _check_flags(context, layer, np.concatenate(norms), np.concatenate(flags), ids, special)


def _check_flags(
    context: Context,
    layer: LayerRecord,
    norms: npt.NDArray[np.float32],
    flags: npt.NDArray[np.uint8],
    ids: npt.NDArray[np.uint32],
    special: npt.NDArray[np.uint32],
) -> Iterator[Finding]:
    if not np.isfinite(norms).all():
        yield Finding(kind="not finite", key=layer.key, detail=f"{int((~np.isfinite(norms)).sum())} rows")
        return
    if int(ids.max(initial=0)) >= context.manifest.tokenizer.size:
        yield Finding(kind="unknown token", key=layer.key, detail=f"token id {int(ids.max())}")
    expected = position_flags(ids, np.arange(len(ids)) % context.identity.context, special)
    expected |= outlier_flags(norms, expected)
    if not np.array_equal(flags, expected):
        yield Finding(kind="wrong flags", key=layer.key, detail=f"{int((flags != expected).sum())} rows")
    if tuple(int((flags & bit != 0).sum()) for bit in FLAGS) != layer.flags:
        yield Finding(kind="wrong flag counts", key=layer.key, detail=f"the record says {list(layer.flags)}")


def add_moments(context: Context, layer: LayerRecord) -> Iterator[Finding]:
    """Check a part's moments file and add it to its layer's."""
    try:
        data = context.store.read(layer.moments)
        if sha256_hex(data) != layer.moments_sha256:
            raise DamagedError("its SHA-256 is not the record's")
        moments = Moments.from_bytes(data, layer.moments)
    except MissingError:
        return  # named by `check_record`
    except DamagedError as error:
        yield Finding(kind="changed moments", key=layer.moments, detail=str(error))
        return
    before = context.moments.get(layer.layer)
    context.moments[layer.layer] = moments if before is None else before + moments
