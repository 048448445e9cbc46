"""The checks of one part: what its record says against what identity, plan, listing and bytes say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import Damage, Finding, keys, parse_record
from kubesae.shards import Moments, blocks_of
from kubesae.verify.content import check_tar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.ledger import LayerRecord, Mode, Part, Record
    from kubesae.shards import BlockRef
    from kubesae.verify.context import Context


@dataclass(frozen=True)
class Checked:
    """A record's key and bytes, what they say (None: they are no record), and what is wrong with the part."""

    key: str
    data: bytes
    record: Record | None
    findings: tuple[Finding, ...]


def read_part(context: Context, key: str) -> Checked:
    """Read a record and check that it is one."""
    shard, part = keys.parse_record(key) or (-1, -1)

    def wrong(kind: Damage, detail: str) -> tuple[Finding]:
        return (Finding(kind=kind, key=key, detail=detail, shard=shard, part=part),)

    try:
        data = context.store.read(key)
    except MissingError:
        return Checked(key, b"", None, wrong(Damage.MISSING_RECORD, "it was there a moment ago"))
    try:
        record = parse_record(data, context.url(key))
    except DamagedError as error:
        return Checked(key, data, None, wrong(Damage.UNREADABLE_RECORD, str(error)))
    if not _in_form(record, data):
        return Checked(key, data, record, wrong(Damage.ALTERED_RECORD, "its bytes are not in the form of a record"))
    return Checked(key, data, record, ())


def _in_form(record: Record, data: bytes) -> bool:
    try:
        return record.to_json() == data
    except ValueError:  # larger than a record may be
        return False


def check_part(context: Context, key: str, mode: Mode) -> Checked:
    """Check one part: in mode `ledger` its record, the sizes of its tars, its moments; in mode `full` every byte."""
    read = read_part(context, key)
    if read.record is None:
        return read
    shard, number = keys.parse_record(key) or (-1, -1)
    try:
        part = context.plan.part(shard, number)
    except IndexError:
        kind, detail = Damage.FOREIGN_RECORD, "the plan has no such part"
        foreign = Finding(kind=kind, key=key, detail=detail, shard=shard, part=number)
        return Checked(key, read.data, read.record, (foreign,))
    found = _Part(context, read.record, key, part).check(mode)
    return Checked(key, read.data, read.record, (*read.findings, *found))


class _Part:
    """A part of the plan and the record under its key."""

    def __init__(self, context: Context, record: Record, key: str, part: Part) -> None:
        self._context = context
        self._record = record
        self._key = key
        self._part = part

    def check(self, mode: Mode) -> Iterator[Finding]:
        record, part = self._record, self._part
        if record.identity != self._context.identity.sha256:
            yield self._wrong(Damage.FORGED_RECORD, f"names identity {record.identity[:12]}")
        if (record.shard, record.part) != (part.shard, part.index):
            detail = f"is the record of shard {record.shard}, part {record.part}"
            yield self._wrong(Damage.MISPLACED_RECORD, detail)
            return  # what it names is another part's
        yield from self._check_claims()
        layers, wanted = [layer.layer for layer in record.layers], list(self._context.identity.layers)
        if layers != wanted:
            yield self._wrong(Damage.WRONG_LAYERS, f"has layers {layers}, not {wanted}")
            return  # nor can it be told which tar is whose
        try:
            refs = blocks_of(record, self._context.plan)
        except DamagedError as error:
            yield self._wrong(Damage.WRONG_BLOCKS, str(error))
            refs = []
        for layer in record.layers:
            named = list(self._check_names(layer))
            yield from named
            if not named:
                yield from self._check_layer(layer, [ref for ref in refs if ref.layer == layer.layer], mode)

    def _check_claims(self) -> Iterator[Finding]:
        record, part = self._record, self._part
        if record.rows != part.rows:
            yield self._wrong(Damage.WRONG_ROW_COUNT, f"{record.rows} rows, the plan has {part.rows}")
        ids = self._context.tokens(part.shard).ids
        if ids is not None:
            ids = ids[part.start : part.start + part.rows]
            if record.tokens_sha256 != sha256_hex(memoryview(ids).cast("B")):
                yield self._wrong(Damage.WRONG_TOKENS, "the digest of its token ids is not that of the plan's")

    def _check_names(self, layer: LayerRecord) -> Iterator[Finding]:
        part = self._part
        if layer.key != keys.tar(layer.layer, part.shard, part.index, layer.sha256[:12]):
            yield self._wrong(Damage.FOREIGN_TAR, f"names {layer.key} as the tar of layer {layer.layer}")
        if layer.moments != keys.moments(layer.layer, part.shard, part.index, layer.moments_sha256[:12]):
            yield self._wrong(Damage.FOREIGN_MOMENTS, f"names {layer.moments} as the moments of layer {layer.layer}")

    def _check_layer(self, layer: LayerRecord, refs: list[BlockRef], mode: Mode) -> Iterator[Finding]:
        moments, found = self._moments(layer)
        yield from found
        size = self._context.size(layer.key)
        if size is None:
            detail = "the record names it, the store does not have it"
            yield self._wrong(Damage.MISSING_TAR, detail, layer.key)
        elif mode == "full":
            for kind, detail, at in check_tar(self._context, self._part, layer, size, refs, moments):
                yield self._wrong(kind, detail, at or self._key)
        elif size != layer.bytes:
            kind = Damage.TRUNCATED_TAR if size < layer.bytes else Damage.CHANGED_TAR
            yield self._wrong(kind, f"{size} bytes, the record says {layer.bytes}", layer.key)

    def _moments(self, layer: LayerRecord) -> tuple[Moments | None, list[Finding]]:
        try:
            data = self._context.store.read(layer.moments)
        except MissingError:
            detail = "the record names it, the store does not have it"
            return None, [self._wrong(Damage.MISSING_MOMENTS, detail, layer.moments)]
        if sha256_hex(data) != layer.moments_sha256:
            detail = "its SHA-256 is not the record's"
            return None, [self._wrong(Damage.CHANGED_MOMENTS, detail, layer.moments)]
        try:
            return Moments.from_bytes(data, layer.moments), []
        except DamagedError as error:
            return None, [self._wrong(Damage.WRONG_MOMENTS, str(error), layer.moments)]

    def _wrong(self, kind: Damage, detail: str, key: str | None = None) -> Finding:
        part = self._part
        return Finding(kind=kind, key=key or self._key, detail=detail, shard=part.shard, part=part.index)
