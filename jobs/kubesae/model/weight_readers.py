"""How the weights of a layer come from disk: through the page cache where all layers fit memory, past it where not.

Layers are read in turns. A cache that holds nearly all of them gives up each just before it is needed again: it would
save nothing, cost a copy, and press on the memory that computing needs: then a layer is read straight into one of two
buffers, while the other one's layer computes.

    CachedReader    tensors are their place in the page cache, which all processes of a node share
    DirectReader    tensors lie in a buffer; O_DIRECT, or where a file system has no such thing, the cache emptied after
"""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from safetensors import safe_open

from kubesae import limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from kubesae.model.quantised import Lazy
    from kubesae.model.weight_files import WeightFiles

_PAGE = 4096  # O_DIRECT wants places and lengths in multiples of a disk's block, which is at most this
_READ = 8 << 20
_READERS = 4  # requests at a time: what a fast disk needs to be busy
_NEAR = 1 << 20  # bytes between two tensors that are rather read than left out
_ROOM = 0.9  # share of the memory that weights in the page cache may take

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Reader(Protocol):
    """Reads layers one after the other."""

    def read(self, layer: int) -> None:
        """Bring a layer's tensors to memory. Those of the reading before stay as they are, those before it do not."""

    def tensors(self, layer: int) -> Mapping[str, Lazy]:
        """Return the tensors of a layer that was read, by name."""


def reader_for(files: WeightFiles, depth: int, wanted: str = "auto") -> Reader:
    """Return the reader of the first `depth` layers that is `wanted`: `cached`, `direct`, or by the memory (`auto`)."""
    if wanted == "auto":
        _, available = limits.memory()
        wanted = "cached" if files.size(range(depth)) <= _ROOM * available else "direct"
    return CachedReader(files) if wanted == "cached" else DirectReader(files, depth)


class CachedReader:
    """Brings a layer into the page cache; files are mapped, so a tensor is its place there."""

    def __init__(self, files: WeightFiles) -> None:
        """Read from `files`."""
        self._files = files

    def read(self, layer: int) -> None:
        """Bring a layer's tensors into the page cache."""
        scratch = memoryview(bytearray(_READ))
        for name, first, last in self._files.ranges(layer):
            with (self._files.folder / name).open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), first, last - first, os.POSIX_FADV_WILLNEED)
                file.seek(first)
                left = last - first
                while left and (count := file.readinto(scratch[: min(left, _READ)])):
                    left -= count

    def tensors(self, layer: int | None) -> dict[str, Lazy]:
        """Return a layer's tensors, mapped; None: those that belong to no layer.

        A file is mapped as long as one of its tensors is in use: nothing maps what was used, so it can be given back.
        """
        entries = self._files.entries(layer)
        files: dict[str, Any] = {
            file: safe_open(self._files.folder / file, "pt") for file in {entry.file for entry in entries.values()}
        }
        return {name: files[entry.file].get_slice(name) for name, entry in entries.items()}


class Run(NamedTuple):
    """Bytes of a file that are read together: its first page's place, that of the page after it, and in the buffer."""

    file: str
    first: int
    last: int
    place: int


class DirectReader:
    """Reads each layer into one of two buffers by turns."""

    def __init__(self, files: WeightFiles, depth: int) -> None:
        """Make buffers for the largest of `depth` layers."""
        self._files = files
        self._runs = [list(_runs(files.ranges(layer))) for layer in range(depth)]
        size = max(runs[-1].place + runs[-1].last - runs[-1].first for runs in self._runs)
        self._buffers = [page_buffer(size) for _ in range(2)]
        self._disk = Disk()

    def read(self, layer: int) -> None:
        """Read a layer into the buffer that is not the last reading's."""
        self._buffers.reverse()
        buffer = memoryview(self._buffers[0].numpy())
        self._disk.read(
            (self._files.folder / run.file, run.first, buffer[run.place :][: run.last - run.first])
            for run in self._runs[layer]
        )

    def tensors(self, layer: int) -> dict[str, Lazy]:
        """Return a layer's tensors, which lie in the buffer of the last reading."""
        tensors: dict[str, Lazy] = {}
        for name, (file, first, last, dtype, shape) in self._files.entries(layer).items():
            run = next(run for run in self._runs[layer] if run.file == file and run.first <= first < run.last)
            place = run.place + first - run.first
            tensors[name] = _typed(self._buffers[0][place : place + last - first], DTYPES[dtype]).view(shape)
        return tensors


class Disk:
    """Reads files with several requests at a time, and leaves nothing in the page cache."""

    def __init__(self) -> None:
        """Start the threads."""
        self._pool = ThreadPoolExecutor(_READERS, "disk")

    def read(self, wanted: Iterable[tuple[Path, int, memoryview]]) -> None:
        """Read files from a byte on, each into its target as far as it goes; both begin at a page."""
        reads = [
            self._pool.submit(_read_direct, path, first + start, target[start : start + _READ])
            for path, first, target in wanted
            for start in range(0, len(target), _READ)
        ]
        for done in reads:
            done.result()


def page_buffer(size: int) -> Tensor:
    """Return uint8 [size] that begins at a page; from there GPUs take copies, where there are any."""
    whole = torch.empty(size + _PAGE, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    return whole[-whole.data_ptr() % _PAGE :][:size]


def _typed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes as what they are; those that no tensor of the dtype can begin at are copied."""
    return (values.clone() if values.data_ptr() % dtype.itemsize else values).view(dtype)


def _runs(ranges: list[tuple[str, int, int]]) -> Iterator[Run]:
    """Put ranges of files, in order, together to whole pages, one after the other in a buffer."""
    place, name, start, stop = 0, "", 0, 0
    for file, first, last in ranges:
        if file == name and first <= stop + _NEAR:
            stop = max(stop, last)
            continue
        if name:
            yield (run := _pages(name, start, stop, place))
            place += run.last - run.first
        name, start, stop = file, first, last
    yield _pages(name, start, stop, place)


def _pages(file: str, first: int, last: int, place: int) -> Run:
    return Run(file, first // _PAGE * _PAGE, -(-last // _PAGE) * _PAGE, place)


def _read_direct(path: Path, first: int, target: memoryview) -> None:
    """Read from the byte `first` on as much as there is for `target`, leaving nothing in the page cache."""
    try:
        _read(path, first, target, os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _read(path, first, target, 0)  # the file system has no direct reads


def _read(path: Path, first: int, target: memoryview, flags: int) -> None:
    file = os.open(path, os.O_RDONLY | flags)
    try:
        done = 0
        while done < len(target) and (count := os.preadv(file, [target[done:]], first + done)):
            done += count
            if done % _PAGE:
                break  # the end of the file, and no place for a direct read
        if not flags:
            os.posix_fadvise(file, first, len(target), os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
