"""Tensors of a file that `torch.save` wrote, without unpickling it.

    tensors = read_torch_zip(data, "s3://bucket/their/ae.pt")

Such a file is a zip: `<name>/data.pkl`, a pickle of a dict whose tensors are references, and a file of plain numbers
for each storage, `<name>/data/0` and so on. A pickle is a program, and running one runs whatever its author wanted. So
nothing here runs it: `pickletools` lists its instructions, and the few that a dict of tensors is made of are followed
by the code below. It knows the names `torch._utils._rebuild_tensor_v2`, `collections.OrderedDict` and those of the
storages of plain numbers, looks none of them up, and ends at the first instruction or name that is anything else.

Torch versions 1.6 to 2.x write this; older ones wrote another form, which is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import warnings
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from kubesae.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

STORAGES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED = "collections OrderedDict"
# A state dict of an SAE has up to ten tensors and a pickle of one kilobyte.
_MAX_PICKLE = 1 << 20
_MAX_DIMENSIONS = 8
# Tensors may share a storage, but not be many times what the file is.
_MAX_EXPANSION = 2


class _RefusedError(Exception):
    """What the file holds is not a dict of tensors; the message says what it is."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name that the pickle mentions: never looked up, only compared."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A reference to the numbers of a tensor."""

    dtype: torch.dtype
    key: str
    numbers: int


class _Mark:
    """Where the items of a tuple or of a dict begin on the stack."""


class _Ordered(dict[Any, Any]):
    """An OrderedDict, which alone may be given attributes (state dicts have `_metadata`); they are ignored."""


def read_torch_zip(data: bytes, where: str) -> dict[str, Tensor]:
    """Return the tensors of a file that `torch.save` made of a dict of tensors, by name, in their dtypes.

    Args:
        data: the file.
        where: its path or URL, for messages.

    Raises:
        DamagedError: it is not such a file, or holds anything else.

    """
    try:
        # the warnings are about backslashes in names, two members of one name, and other things that are refused anyway
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, len(data))
    except _RefusedError as refused:
        reason = str(refused)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        reason = f"it is not a zip file as torch writes them since version 1.6 ({error})"
    # IndexError: a stack that ends too soon; the others: bytes that are no pickle, or things of another kind
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        reason = f"its pickle is broken ({error!r})"
    raise DamagedError(
        f"{where} was not read: {reason}. Nothing in it was run. In the library that made it, save a plain dict of "
        "tensors: torch.save(dict(model.state_dict()), path)."
    )


def _read(archive: zipfile.ZipFile, size: int) -> dict[str, Tensor]:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise _RefusedError("it holds two files of one name")
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size > size for info in members.values()):
        raise _RefusedError("it holds compressed files, which torch does not write")
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _RefusedError(f"it holds {len(pickles)} files data.pkl where torch writes one")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
        raise _RefusedError("its numbers are not little-endian")
    if members[pickles[0]].file_size > _MAX_PICKLE:
        raise _RefusedError(f"its pickle has {members[pickles[0]].file_size} bytes, far more than tensors need")

    def numbers_of(storage: _Storage) -> Tensor:
        raw = archive.read(f"{folder}data/{storage.key}")
        if len(raw) != storage.numbers * storage.dtype.itemsize or not raw:
            raise _RefusedError(f"storage {storage.key} has {len(raw)} bytes, not {storage.numbers} {storage.dtype}")
        return torch.frombuffer(bytearray(raw), dtype=storage.dtype)

    found = _Machine(numbers_of, _MAX_EXPANSION * size).run(archive.read(pickles[0]))
    if not isinstance(found, dict):
        raise _RefusedError(f"it holds {_shown(found)}, not a dict of tensors")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise _RefusedError(f"its dict holds {_shown(value)} under {name!r}, not a tensor under a name")
    return dict(found)


@dataclass
class _Machine:
    """Follows the instructions of a pickle that is a dict of tensors.

    `load` gives the numbers of a storage; `room` is how many bytes tensors may still take.
    """

    load: Callable[[_Storage], Tensor]
    room: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, pickle: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(pickle):
            name = opcode.name
            if name in {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}:
                self.stack.append(argument)
            elif name == "GLOBAL":
                self.stack.append(_known(str(argument)))
            elif name in {"BINPUT", "LONG_BINPUT"}:
                self.memo[int(str(argument))] = self.stack[-1]
            elif name in {"BINGET", "LONG_BINGET"}:
                self.stack.append(self.memo[int(str(argument))])
            elif name == "STOP":
                return self._last()
            elif name not in {"PROTO", "FRAME"}:
                self._follow(name)
        raise _RefusedError("its pickle has no end")

    def _last(self) -> Any:
        if len(self.stack) != 1:
            raise _RefusedError(f"its pickle leaves {len(self.stack)} things where one belongs")
        return self.stack[0]

    def _follow(self, name: str) -> None:
        """Follow an instruction that has no argument."""
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self._tuple(_TUPLES[name])
        elif name == "TUPLE":
            self.stack.append(tuple(self._since_mark()))
        elif name == "BINPERSID":
            self.stack.append(_storage(self.stack.pop()))
        elif name == "REDUCE":
            arguments, called = self.stack.pop(), self.stack.pop()
            self.stack.append(self._made_by(called, arguments))
        elif name == "SETITEM":
            value, key = self.stack.pop(), self.stack.pop()
            self._set([key, value])
        elif name == "SETITEMS":
            self._set(self._since_mark())
        elif name == "BUILD":
            attributes = self.stack.pop()
            if type(self.stack[-1]) is not _Ordered or type(attributes) is not dict:
                raise _RefusedError(f"its pickle gives attributes to {_shown(self.stack[-1])}")
        else:
            raise _RefusedError(f"its pickle does more than make a dict of tensors (instruction {name})")

    def _tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise _RefusedError("its pickle takes what is not there")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def _since_mark(self) -> list[Any]:
        at = max(i for i, item in enumerate(self.stack) if type(item) is _Mark)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in {dict, _Ordered} or len(items) % 2:
            raise _RefusedError(f"its pickle sets items of {_shown(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str or key in target:
                raise _RefusedError(f"its pickle has the key {key!r:.40} twice, or it is no text")
            target[key] = value

    def _made_by(self, called: object, arguments: object) -> Any:
        """Return what the call of a known name gives."""
        if called == _Name(_ORDERED) and arguments == ():
            return _Ordered()
        if called != _Name(_REBUILD) or not isinstance(arguments, tuple) or len(arguments) not in {6, 7}:
            raise _RefusedError(f"its pickle calls {_shown(called)} with {_shown(arguments)}")
        storage, offset, size, stride, requires_grad, *rest = arguments
        if type(storage) is not _Storage or type(requires_grad) is not bool or any(rest):
            raise _RefusedError("it holds a tensor that is more than numbers")
        _check_view(storage, offset, size, stride)
        self.room -= storage.numbers * storage.dtype.itemsize
        if self.room < 0:
            raise _RefusedError("its tensors are many times larger than the file")
        return torch.as_strided(self.load(storage), size, stride, offset).clone()


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _known(name: str) -> _Name:
    if name not in {_REBUILD, _ORDERED, *STORAGES}:
        raise _RefusedError(f"its pickle asks for {name.replace(' ', '.')!r:.80}, which is no tensor")
    return _Name(name)


def _storage(reference: object) -> _Storage:
    """Return the storage of a persistent id: ("storage", its kind, key, device, how many numbers)."""
    if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
        raise _RefusedError(f"its pickle refers to {_shown(reference)}")
    _, kind, key, _, numbers = reference
    if type(kind) is not _Name or kind.name not in STORAGES or type(key) is not str or not key.isdigit():
        raise _RefusedError(f"its pickle refers to a storage {_shown(kind)} {key!r:.40}")
    if type(numbers) is not int or numbers < 0:
        raise _RefusedError(f"its storage {key} has {numbers!r:.40} numbers")
    return _Storage(STORAGES[kind.name], key, numbers)


def _check_view(storage: _Storage, offset: Any, size: Any, stride: Any) -> None:
    """See that a tensor lies within its storage, and is not larger: strides of 0 would make much out of little."""
    whole = [offset]
    for part in (size, stride):
        if not isinstance(part, tuple) or len(part) > _MAX_DIMENSIONS:
            raise _RefusedError(f"a tensor of storage {storage.key} has the shape {part!r:.40}")
        whole += part
    if any(type(number) is not int or number < 0 for number in whole):
        raise _RefusedError(f"a tensor of storage {storage.key} has a negative size, or one that is no number")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > storage.numbers or math.prod(size) == 0 or last >= storage.numbers:
        raise _RefusedError(f"a tensor of storage {storage.key} is empty, or larger than its {storage.numbers} numbers")


def _shown(thing: object) -> str:
    return thing.name if isinstance(thing, _Name) else f"a {type(thing).__name__.lstrip('_').lower()}"
