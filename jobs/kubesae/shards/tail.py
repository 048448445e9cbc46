"""Read what a block says of its rows without their activations: the members after these, by one ranged read.

    tail = read_tail(store, ref, identity)      # tail.tokens, tail.flags, tail.documents()

At full size a block is tens of megabytes and its tail tens of kilobytes. Where each member lies follows from the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubesae.shards.codecs import Stored, codec
from kubesae.shards.layout import Document, array_bytes, array_start
from kubesae.shards.reader import (
    FLAGS,
    TAIL,
    TOKENS,
    check_is_block,
    parse_array,
    parse_meta,
    split_members,
)

if TYPE_CHECKING:
    from kubesae.experiment import DataIdentity
    from kubesae.shards.index import BlockRef
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class BlockTail:
    """A block without its activations.

    Attributes:
        key: sample key.
        tokens: uint32 [tokens].
        flags: uint8 [tokens].
        meta: the `.json` member.

    """

    key: str
    tokens: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint8]
    meta: dict[str, Any]

    def documents(self) -> list[Document]:
        """Runs of rows by document."""
        return [Document(*entry) for entry in self.meta["documents"]]


def read_tail(store: Store, ref: BlockRef, identity: DataIdentity) -> BlockTail:
    """Read a block's tokens, flags and documents.

    Raises:
        MissingError: the tar is not there.
        DamagedError: the bytes there are not that block's.

    """
    skipped = _activation_bytes(ref, identity)
    data = memoryview(bytearray(max(0, ref.bytes - skipped)))
    store.read_into(ref.tar, ref.offset + skipped, data)
    where = store.url_of(ref.tar)
    key, members = split_members(data, TAIL, where)
    tail = BlockTail(
        key,
        parse_array(members["tokens.npy"], TOKENS, f"{where}: {key}.tokens.npy", dimensions=1),
        parse_array(members["flags.npy"], FLAGS, f"{where}: {key}.flags.npy", dimensions=1),
        parse_meta(members["json"], key, where),
    )
    rows = len(tail.tokens) if len(tail.tokens) == len(tail.flags) else -1
    check_is_block(ref, key, tail.meta, rows, where)
    return tail


def read_flags(store: Store, ref: BlockRef, identity: DataIdentity) -> npt.NDArray[np.uint8]:
    """Read a block's flags alone, uint8 [rows]. Raises as `read_tail`."""
    start = ref.offset + _activation_bytes(ref, identity) + array_bytes(TOKENS, (ref.rows,))
    data = memoryview(bytearray(array_bytes(FLAGS, (ref.rows,))))
    store.read_into(ref.tar, start, data)
    where = store.url_of(ref.tar)
    key, members = split_members(data, TAIL[1:2], where)
    flags = parse_array(members["flags.npy"], FLAGS, f"{where}: {key}.flags.npy", dimensions=1)
    check_is_block(ref, key, {"layer": ref.layer, "row": ref.row}, len(flags), where)
    return flags


def read_row(store: Store, ref: BlockRef, identity: DataIdentity, row: int) -> npt.NDArray[np.float32]:
    """Read one activation, float32 [d_model]: that of row `row` of the block. Raises as `read_tail`."""
    storage, member, pieces = codec(identity.storage), ref.offset, []
    for dtype, shape in storage.arrays(ref.rows, identity.d_model).values():
        data = memoryview(bytearray(shape[1] * dtype.itemsize))
        store.read_into(ref.tar, member + array_start(dtype, shape) + row * len(data), data)
        pieces.append(np.frombuffer(data, dtype)[None])
        member += array_bytes(dtype, shape)
    return Stored(storage, *pieces).float32().reshape(-1)


def _activation_bytes(ref: BlockRef, identity: DataIdentity) -> int:
    return sum(array_bytes(*array) for array in codec(identity.storage).arrays(ref.rows, identity.d_model).values())
