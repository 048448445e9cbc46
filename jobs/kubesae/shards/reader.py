"""Read blocks back: one ranged read a block, parsed without a copy.

    block = read_block(store, ref)     # block.acts [tokens, d_model], block.tokens, block.flags, block.meta

Whatever the bytes are, the only error is DamagedError.
"""

from __future__ import annotations

import json
import math
import re
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError
from kubesae.shards.codecs import EXPONENTS, Stored, codec
from kubesae.shards.layout import TAR_BLOCK, Document, padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.shards.codecs import Codec
    from kubesae.shards.index import BlockRef
    from kubesae.store import Store

TAIL = ("tokens.npy", "flags.npy", "json")
"""endings of a block's members after its activations"""

TOKENS = np.dtype("<u4")
FLAGS = np.dtype("u1")

# The header of an npy file, version 1.0, as numpy writes it for arrays in C order. Matched and not evaluated: numpy's
# own reader evaluates it as Python, and raises whatever that raises for damaged bytes.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '(?P<descr>[<|]\w\d)', 'fortran_order': False, 'shape': \((?P<shape>[\d, ]{1,40})\), \} *\n",
    re.DOTALL,
)
_NPY_MAGIC = 10


@dataclass(frozen=True, slots=True)
class BlockData:
    """One block as it lies in the tar; the arrays are views of the buffer it was read into.

    Attributes:
        key: sample key.
        acts: [tokens, d_model] as stored (bfloat16 as int16, int8-block32 as int8); `float32()` converts.
        exponents: int8 [tokens, blocks of 32 dimensions] of int8-block32: a value is `acts` x 2^exponent; else None.
        tokens: uint32 [tokens].
        flags: uint8 [tokens].
        meta: the `.json` member.

    """

    key: str
    acts: npt.NDArray[Any]
    exponents: npt.NDArray[np.int8] | None
    tokens: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint8]
    meta: dict[str, Any]

    @property
    def dtype(self) -> str:
        """Storage dtype, as the experiment names it."""
        return str(self.meta["dtype"])

    @property
    def row(self) -> int:
        """Global row of the first token."""
        return int(self.meta["row"])

    @property
    def stored(self) -> Stored:
        """Activations, to be read by rows."""
        return Stored(codec(self.dtype), self.acts, self.exponents)

    def float32(self) -> npt.NDArray[np.float32]:
        """Activations as float32 [tokens, d_model]."""
        return self.stored.float32()

    def documents(self) -> list[Document]:
        """Runs of rows by document."""
        return [Document(*entry) for entry in self.meta["documents"]]


def read_block(store: Store, ref: BlockRef, buffer: memoryview | None = None) -> BlockData:
    """Read one block, into `buffer` (at least `ref.bytes` long) when given.

    Raises:
        MissingError: the tar is not there.
        DamagedError: the bytes there are not that block.

    """
    target = memoryview(bytearray(ref.bytes)) if buffer is None else buffer[: ref.bytes]
    store.read_into(ref.tar, ref.offset, target)
    where = f"{store.url}/{ref.tar}"
    try:
        block = parse_block(target, where)
    except DamagedError as error:
        raise DamagedError(f"{error} Run `kubesae verify --mode full`, which names all damage.") from error
    check_is_block(ref, block.key, block.meta, len(block.tokens), where)
    return block


def check_is_block(ref: BlockRef, key: str, meta: dict[str, Any], rows: int, where: str) -> None:
    """Raise DamagedError when what lies at `ref` is another block than its record says."""
    found = (key, meta["layer"], meta["row"], rows)
    if found != (ref.key, ref.layer, ref.row, ref.rows):
        raise DamagedError(
            f"{where} holds {found} (block, layer, row, rows) at byte {ref.offset}, where its record says "
            f"{(ref.key, ref.layer, ref.row, ref.rows)}. Run `kubesae verify --mode full`."
        )


def parse_block(data: memoryview, where: str) -> BlockData:
    """Parse the members of one block from the bytes of a tar.

    Raises:
        DamagedError: foreign, truncated or inconsistent bytes; `where` names them.

    """
    key, members = split_members(data, (*_endings(data, where), *TAIL), where)
    meta = parse_meta(members["json"], key, where)
    acts, exponents = _parse_activations(members, codec(meta["dtype"]), f"{where}: {key}")
    tokens = parse_array(members["tokens.npy"], TOKENS, f"{where}: {key}.tokens.npy", dimensions=1)
    flags = parse_array(members["flags.npy"], FLAGS, f"{where}: {key}.flags.npy", dimensions=1)
    if not len(acts) == len(tokens) == len(flags):
        raise DamagedError(f"{where}: {key} has {len(acts)} activations, {len(tokens)} tokens, {len(flags)} flags.")
    return BlockData(key, acts, exponents, tokens, flags, meta)


def _endings(data: memoryview, where: str) -> tuple[str, ...]:
    """Return the endings of a block's first members, those of its activations: its dtype stands in its last one."""
    _, start, size = _member(data, 0, where)
    second, *_ = _member(data, start + padded(size), where)
    return ("acts.npy", EXPONENTS) if second.endswith(f".{EXPONENTS}") else ("acts.npy",)


def _parse_activations(
    members: dict[str, memoryview], storage: Codec, where: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int8] | None]:
    """Return activations, and exponents where the codec has them. Raises DamagedError when they do not fit it."""
    acts = parse_array(members["acts.npy"], storage.disk, f"{where}.acts.npy", dimensions=2)
    wanted = storage.arrays(*acts.shape).get(EXPONENTS)
    if (wanted is not None) != (EXPONENTS in members):
        raise DamagedError(f"{where} is {storage.name} {'without' if wanted else 'with'} {EXPONENTS}.")
    if wanted is None:
        return acts, None
    dtype, shape = wanted
    exponents = parse_array(members[EXPONENTS], dtype, f"{where}.{EXPONENTS}", dimensions=2)
    if exponents.shape != shape:
        raise DamagedError(f"{where}.{EXPONENTS} has shape {exponents.shape}; {shape} was expected.")
    return acts, exponents


def split_members(data: memoryview, suffixes: Sequence[str], where: str) -> tuple[str, dict[str, memoryview]]:
    """Return the sample key and the contents of members of one sample that lie one after the other in `data`.

    Raises:
        DamagedError: these are not the members that lie there.

    """
    members: dict[str, memoryview] = {}
    key = ""
    at = 0
    for suffix in suffixes:
        name, start, size = _member(data, at, where)
        stem, _, ending = name.partition(".")
        if ending != suffix or (key and stem != key):
            raise DamagedError(f"{where}: member {name!r} stands where {key or '*'}.{suffix} is expected.")
        key = stem
        members[suffix] = data[start : start + size]
        at = start + padded(size)
    return key, members


def _member(data: memoryview, at: int, where: str) -> tuple[str, int, int]:
    """Name, first byte and size of the member whose header is at byte `at`."""
    try:
        info = tarfile.TarInfo.frombuf(bytes(data[at : at + TAR_BLOCK]), "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise DamagedError(
            f"{where} is not a kubesae tar: no member header at byte {at} of the block ({error})."
        ) from error
    start = at + TAR_BLOCK
    if start + info.size > len(data):
        raise DamagedError(f"{where} is cut short: {info.name} ends {start + info.size - len(data)} bytes too late.")
    return info.name, start, info.size


def parse_meta(data: memoryview, key: str, where: str) -> dict[str, Any]:
    """Parse the `.json` member of the sample `key`. Raises DamagedError when it lacks a field."""
    try:
        meta = json.loads(bytes(data))
    except ValueError as error:
        raise DamagedError(f"{where}: {key}.json is not JSON ({error}).") from error
    fields = {"documents": list, "dtype": str, "layer": int, "row": int}
    if not isinstance(meta, dict) or not all(isinstance(meta.get(name), kind) for name, kind in fields.items()):
        raise DamagedError(f"{where}: {key}.json lacks one of {', '.join(fields)}.")
    if not all(isinstance(entry, list) and len(entry) == len(Document.__slots__) for entry in meta["documents"]):
        raise DamagedError(f"{where}: {key}.json has documents that are not lists of {len(Document.__slots__)} values.")
    return meta


def parse_array(data: memoryview, dtype: np.dtype[Any], where: str, dimensions: int) -> npt.NDArray[Any]:
    """View the npy file `data` as its array. Raises DamagedError when it is of another kind than given."""
    header = _NPY_HEADER.match(bytes(data[:TAR_BLOCK]))
    if header is None:
        raise DamagedError(f"{where} is not an npy array as kubesae writes them.")
    body = data[_NPY_MAGIC + int.from_bytes(header["length"], "little") :]
    descr, shape = header["descr"].decode(), tuple(int(n) for n in header["shape"].split(b",") if n.strip())
    if descr != dtype.str or len(shape) != dimensions or len(body) != math.prod(shape) * dtype.itemsize:
        raise DamagedError(f"{where} has dtype {descr}, shape {shape} and {len(body)} bytes; {dtype.str} was expected.")
    return np.frombuffer(body, dtype).reshape(shape)
