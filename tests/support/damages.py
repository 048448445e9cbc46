"""Every way to damage a part, its moments, the tokens or the index, and what verify has to call it.

    expected = DAMAGES["flipped bit"](Damaged(store, plan), generator, [(0, 3)])

Each damage takes the places (shard, part) of parts that it may harm, and returns the kind and key of findings that must
be among those of these parts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.experiment import canonical_json, sha256_hex
from kubesae.ledger import Damage, keys, parse_record
from kubesae.shards import Moments, PartTar, blocks_of, codec, parse_block

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubesae.ledger import Plan, Record
    from kubesae.shards import BlockData, BlockRef
    from kubesae.store import Store

    Place = tuple[int, int]
    Found = list[tuple[Damage, str]]
    Generator = np.random.Generator


@dataclass
class Damaged:
    """A store to damage, and its plan."""

    store: Store
    plan: Plan
    vocabulary: int

    def record(self, place: Place) -> Record:
        """Read a record."""
        return parse_record(self.store.read(keys.record(*place)), "record")

    def edit(self, place: Place, index: int | None = None, **changes: Any) -> None:
        """Change fields of a record, or of its layer `index`; it stays in the form of a record."""
        values = json.loads(self.store.read(keys.record(*place)))
        (values if index is None else values["layers"][index]).update(changes)
        self.store.put(keys.record(*place), canonical_json(values))

    def blocks(self, place: Place, index: int, data: bytearray) -> list[tuple[BlockRef, BlockData]]:
        """Blocks of the part's tar of layer `index`, as views of `data`."""
        record = self.record(place)
        refs = [ref for ref in blocks_of(record, self.plan) if ref.layer == record.layers[index].layer]
        view = memoryview(data)
        return [(ref, parse_block(view[ref.offset : ref.offset + ref.bytes], "tar")) for ref in refs]

    def forge(self, place: Place, index: int, data: bytes | bytearray, **changes: Any) -> str:
        """Put other bytes in the place of a tar; its name and the record are made to fit. Return its key."""
        layer, digest = self.record(place).layers[index], sha256_hex(data)
        key = keys.tar(layer.layer, *place, digest[:12])
        self.store.put(key, bytes(data))
        self.store.delete(layer.key)
        self.edit(place, index, key=key, sha256=digest, bytes=len(data), **changes)
        return key


def pick(generator: Generator, damaged: Damaged, place: Place) -> int:
    """Choose a layer of the part."""
    return int(generator.integers(len(damaged.record(place).layers)))


def of_object(
    key_of: Callable[[Damaged, Generator, Place], str],
    change: Callable[[Generator, bytes], bytes | None],
    kind: Damage,
) -> Callable[..., Found]:
    """Return a damage that changes the bytes of one object and nothing else (None: it is deleted)."""

    def damage(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
        key = key_of(damaged, generator, places[0])
        data = change(generator, damaged.store.read(key))
        damaged.store.delete(key) if data is None else damaged.store.put(key, data)
        return [(kind, key)]

    return damage


def a_tar(damaged: Damaged, generator: Generator, place: Place) -> str:
    """Key of a tar of the part."""
    return damaged.record(place).layers[pick(generator, damaged, place)].key


def some_moments(damaged: Damaged, generator: Generator, place: Place) -> str:
    """Key of a moments file of the part."""
    return damaged.record(place).layers[pick(generator, damaged, place)].moments


def the_record(_damaged: Damaged, _generator: Generator, place: Place) -> str:
    """Key of the part's record."""
    return keys.record(*place)


def of_fields(
    kind: Damage, layer: Callable[[Generator, Any], dict[str, Any]] | None = None, **fields: Any
) -> Callable[..., Found]:
    """Return a damage that forges fields of a record, or of one of its layers."""

    def damage(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
        if layer is None:
            damaged.edit(places[0], **fields)
        else:
            index = pick(generator, damaged, places[0])
            damaged.edit(places[0], index, **layer(generator, damaged.record(places[0]).layers[index]))
        return [(kind, keys.record(*places[0]))]

    return damage


def of_content(
    change: Callable[[Generator, Damaged, bytearray, list[Any]], None], kind: Damage
) -> Callable[..., Found]:
    """Return a damage that forges the content of a tar, its name and its record alike."""

    def damage(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
        index = pick(generator, damaged, places[0])
        layer = damaged.record(places[0]).layers[index]
        data = bytearray(damaged.store.read(layer.key))
        change(generator, damaged, data, damaged.blocks(places[0], index, data))
        key = damaged.forge(places[0], index, data)
        return [(kind, layer.moments if kind is Damage.WRONG_MOMENTS else key)]

    return damage


def flip(generator: Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def cut(generator: Generator, data: bytes) -> bytes:
    return data[: int(generator.integers(len(data)))]


def lengthen(generator: Generator, data: bytes) -> bytes:
    return data + generator.bytes(int(generator.integers(1, 2000)))


def remove(_generator: Generator, _data: bytes) -> None:
    return None


def garble(generator: Generator, data: bytes) -> bytes:
    return data[: int(generator.integers(1, len(data)))]


def spaced(_generator: Generator, data: bytes) -> bytes:
    return json.dumps(json.loads(data)).encode()


def not_a_number(generator: Generator, _damaged: Damaged, _data: bytearray, blocks: list[Any]) -> None:
    _one(generator, blocks).acts[_row(generator, blocks), 5] = 0x7FC0


def infinite(generator: Generator, _damaged: Damaged, _data: bytearray, blocks: list[Any]) -> None:
    _one(generator, blocks).acts[_row(generator, blocks), 7] = 0x7F80


def other_token(generator: Generator, _damaged: Damaged, _data: bytearray, blocks: list[Any]) -> None:
    tokens = _one(generator, blocks).tokens
    at = int(generator.integers(len(tokens)))
    tokens[at] = tokens[at] - 1 if tokens[at] else 1


def unknown_token(generator: Generator, damaged: Damaged, _data: bytearray, blocks: list[Any]) -> None:
    _one(generator, blocks).tokens[0] = damaged.vocabulary + int(generator.integers(1000))


def other_flag(generator: Generator, _damaged: Damaged, _data: bytearray, blocks: list[Any]) -> None:
    flags = _one(generator, blocks).flags
    flags[int(generator.integers(len(flags)))] ^= 1 << int(generator.integers(8))


def other_document(generator: Generator, _damaged: Damaged, data: bytearray, _blocks: list[Any]) -> None:
    at = data.index(b".txt")
    data[at - 1] = ord("x")


def other_value(generator: Generator, _damaged: Damaged, _data: bytearray, blocks: list[Any]) -> None:
    """The second lowest bit of one value: what no digest shows and only the moments know."""
    block = _one(generator, blocks)
    row = int(np.flatnonzero(block.flags == 0)[int(generator.integers((block.flags == 0).sum()))])
    block.acts[row, int(generator.integers(block.acts.shape[1]))] ^= 0x0002


def blocks_exchanged(_generator: Generator, _damaged: Damaged, data: bytearray, blocks: list[Any]) -> None:
    """The first two blocks, with padding that keeps the offsets, change their sample keys."""
    for (ref, _), other in zip(blocks[:2], (blocks[1][0], blocks[0][0]), strict=True):
        old, new = ref.key.encode(), other.key.encode()
        at = ref.offset
        while (at := data.find(old, at, ref.offset + ref.bytes)) >= 0:
            data[at : at + len(old)] = new
            header = at
            data[header + 148 : header + 156] = b" " * 8
            data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
            at += len(old)


def header(generator: Generator, _damaged: Damaged, data: bytearray, _blocks: list[Any]) -> None:
    data[int(generator.integers(20))] ^= 0x02


def narrower(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    """A tar with half the width, sound in itself."""
    index = pick(generator, damaged, places[0])
    layer = damaged.record(places[0]).layers[index]
    data = bytearray(damaged.store.read(layer.key))
    blocks = [block for _, block in damaged.blocks(places[0], index, data)]
    width = blocks[0].acts.shape[1] // 2
    tar = PartTar(
        damaged.plan.blocks(damaged.plan.part(*places[0])),
        [block.documents() for block in blocks],
        [block.row for block in blocks],
        layer=layer.layer,
        d_model=width,
        codec=codec(blocks[0].dtype),
    )
    for i, block in enumerate(blocks):
        tar.stored[i].acts[:], tar.tokens[i][:], tar.flags[i][:] = block.acts[:, :width], block.tokens, block.flags
    key = damaged.forge(places[0], index, tar.buffer.tobytes(), blocks=tar.offsets)
    return [(Damage.WRONG_SHAPE, key)]


def tars_swapped(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    index = pick(generator, damaged, places[0])
    first, second = (damaged.record(place).layers[index].key for place in places)
    data = damaged.store.read(first), damaged.store.read(second)
    damaged.store.put(first, data[1])
    damaged.store.put(second, data[0])
    return [(Damage.SWAPPED_TAR, first), (Damage.SWAPPED_TAR, second)]


def records_swapped(damaged: Damaged, _generator: Generator, places: list[Place]) -> Found:
    first, second = (keys.record(*place) for place in places)
    data = damaged.store.read(first), damaged.store.read(second)
    damaged.store.put(first, data[1])
    damaged.store.put(second, data[0])
    return [(Damage.MISPLACED_RECORD, first), (Damage.MISPLACED_RECORD, second)]


def record_doubled(damaged: Damaged, _generator: Generator, places: list[Place]) -> Found:
    damaged.store.put(keys.record(*places[0]), damaged.store.read(keys.record(*places[1])))
    return [(Damage.MISPLACED_RECORD, keys.record(*places[0]))]


def record_of_no_part(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    shard = places[0][0]
    place = shard, damaged.plan.parts(shard) + int(generator.integers(100, 1_000_000))
    damaged.store.put(keys.record(*place), damaged.store.read(keys.record(*places[0])))
    return [(Damage.FOREIGN_RECORD, keys.record(*place))]


def tar_of_another_part(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    index = pick(generator, damaged, places[0])
    other = damaged.record(places[1]).layers[index]
    damaged.edit(places[0], index, key=other.key, sha256=other.sha256, bytes=other.bytes)
    return [(Damage.FOREIGN_TAR, keys.record(*places[0]))]


def moments_of_another_part(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    index = pick(generator, damaged, places[0])
    other = damaged.record(places[1]).layers[index]
    damaged.edit(places[0], index, moments=other.moments, moments_sha256=other.moments_sha256)
    return [(Damage.FOREIGN_MOMENTS, keys.record(*places[0]))]


def moments_forged(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    """A moments file that is sound in itself, and named by the record."""
    index = pick(generator, damaged, places[0])
    layer = damaged.record(places[0]).layers[index]
    moments = Moments.from_bytes(damaged.store.read(layer.moments), "moments")
    moments.total[int(generator.integers(len(moments.total)))] += 0.5
    data = moments.to_bytes()
    digest = sha256_hex(data)
    key = keys.moments(layer.layer, *places[0], digest[:12])
    damaged.store.put(key, data)
    damaged.store.delete(layer.moments)
    damaged.edit(places[0], index, moments=key, moments_sha256=digest)
    return [(Damage.WRONG_MOMENTS, key)]


def digest_forged_behind_the_name(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    index = pick(generator, damaged, places[0])
    layer = damaged.record(places[0]).layers[index]
    damaged.edit(places[0], index, sha256=layer.sha256[:12] + sha256_hex(generator.bytes(8))[12:])
    return [(Damage.CHANGED_TAR, layer.key)]


def record_flipped(damaged: Damaged, generator: Generator, places: list[Place]) -> Found:
    """One bit anywhere but in the numerics, of which no record holds a digest: whatever it makes, it is found."""
    key = keys.record(*places[0])
    data = bytearray(damaged.store.read(key))
    start = data.index(b'"numerics"')
    outside = [*range(start), *range(data.index(b'},"part"', start) + 1, len(data))]
    data[outside[int(generator.integers(len(outside)))]] ^= 1 << int(generator.integers(8))
    damaged.store.put(key, bytes(data))
    return []


def _one(generator: Generator, blocks: list[Any]) -> BlockData:
    block: BlockData = blocks[int(generator.integers(len(blocks)))][1]
    return block


def _row(generator: Generator, blocks: list[Any]) -> int:
    return int(generator.integers(min(len(block.tokens) for _, block in blocks)))


def _offsets(generator: Generator, layer: Any) -> dict[str, Any]:
    return {"blocks": [offset + int(generator.integers(1, 9)) for offset in layer.blocks]}


def _counts(generator: Generator, layer: Any) -> dict[str, Any]:
    return {"flags": [count + int(generator.integers(1, 5)) for count in layer.flags]}


PARTS: dict[str, Callable[..., Found]] = {
    "flipped bit": of_object(a_tar, flip, Damage.CHANGED_TAR),
    "truncated tar": of_object(a_tar, cut, Damage.TRUNCATED_TAR),
    "lengthened tar": of_object(a_tar, lengthen, Damage.CHANGED_TAR),
    "missing tar": of_object(a_tar, remove, Damage.MISSING_TAR),
    "swapped tars": tars_swapped,
    "missing record": of_object(the_record, remove, Damage.MISSING_RECORD),
    "unreadable record": of_object(the_record, garble, Damage.UNREADABLE_RECORD),
    "spaced record": of_object(the_record, spaced, Damage.ALTERED_RECORD),
    "flipped bit of a record": record_flipped,
    "doubled record": record_doubled,
    "reordered records": records_swapped,
    "record of no part": record_of_no_part,
    "forged identity": of_fields(Damage.FORGED_RECORD, identity="0" * 64),
    "forged rows": of_fields(Damage.WRONG_ROW_COUNT, rows=7),
    "forged token digest": of_fields(Damage.WRONG_TOKENS, tokens_sha256="f" * 64),
    "forged layers": of_fields(Damage.WRONG_LAYERS, layers=[]),
    "forged offsets": of_fields(Damage.WRONG_BLOCKS, _offsets),
    "forged flag counts": of_fields(Damage.WRONG_FLAG_COUNTS, _counts),
    "forged digest behind the name": digest_forged_behind_the_name,
    "tar of another part": tar_of_another_part,
    "moments of another part": moments_of_another_part,
    "NaN": of_content(not_a_number, Damage.NOT_FINITE),
    "infinity": of_content(infinite, Damage.NOT_FINITE),
    "other token": of_content(other_token, Damage.WRONG_TOKENS),
    "token outside the vocabulary": of_content(unknown_token, Damage.UNKNOWN_TOKEN),
    "other flag": of_content(other_flag, Damage.WRONG_FLAGS),
    "other document": of_content(other_document, Damage.WRONG_DOCUMENTS),
    "other value": of_content(other_value, Damage.WRONG_MOMENTS),
    "exchanged blocks": of_content(blocks_exchanged, Damage.WRONG_BLOCK),
    "broken header": of_content(header, Damage.MALFORMED_TAR),
    "other shape": narrower,
    "missing moments": of_object(some_moments, remove, Damage.MISSING_MOMENTS),
    "changed moments": of_object(some_moments, flip, Damage.CHANGED_MOMENTS),
    "forged moments": moments_forged,
}
"""damages of parts; those that take two places are given two"""

LOST = ("flipped bit", "truncated tar", "lengthened tar", "missing tar", "missing moments", "changed moments")
"""those that are seen although the tokens are damaged"""


def token_files(plan: Plan) -> Iterator[str]:
    """Keys of all token files."""
    for shard in range(plan.num_shards):
        yield from (keys.tokens(shard), keys.documents(shard))
    yield from (keys.TOKENS_MANIFEST, keys.TOKENIZER)


def damage_tokens(damaged: Damaged, generator: Generator, key: str) -> Found:
    """Flip, cut, lengthen or remove a token file."""
    change = (flip, cut, lengthen, remove)[int(generator.integers(4))]
    data = change(generator, damaged.store.read(key))
    damaged.store.delete(key) if data is None else damaged.store.put(key, data)
    return [(Damage.MISSING_TOKENS if data is None else Damage.DAMAGED_TOKENS, key)]


def derived_files(layers: tuple[int, ...]) -> Iterator[tuple[str, Damage]]:
    """Keys of what verify writes, and what damage to it is called."""
    yield keys.INDEX, Damage.DAMAGED_INDEX
    for layer in layers:
        yield keys.layer_urls(layer), Damage.DAMAGED_INDEX
        yield keys.merged_moments(layer), Damage.WRONG_MOMENTS
