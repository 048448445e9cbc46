"""The tensors of a checkpoint in safetensors files, by name and by layer; each is read when it is needed.

Files are mapped: on CPUs a weight is its place in the page cache, which all processes of a node share and the kernel
takes back when memory is short. `read_ahead` brings a layer there before it is needed.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from kubesae.errors import ConfigError
from kubesae.hub import loading
from kubesae.model.truncate import WEIGHTS_ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubesae.model.quantised import Lazy
    from kubesae.model.source import ModelSource

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_READ = 8 << 20
HEADER_LENGTH = 8  # bytes of the length of a file's header


class WeightFiles:
    """A checkpoint's tensors, sorted by the layers of a model that has `layers` under the module path `path`."""

    def __init__(self, folder: Path, path: str, depth: int) -> None:
        """Look into the index, or the one file, in `folder`; no tensor is read.

        Raises:
            ConfigError: there are no safetensors weights, or none for a layer up to `depth`.

        """
        self._folder = folder
        self._headers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._place = _places(folder)
        self._names: dict[int | None, list[str]] = {}
        for name in self._place:
            self._names.setdefault(layer_of(name, path), []).append(name)
        missing = [layer for layer in range(depth) if layer not in self._names]
        if missing:
            raise ConfigError(f"{folder} has no weights of layer {missing[0]} (under {path!r}). {WEIGHTS_ADVICE}")

    def names(self, layer: int | None) -> list[str]:
        """Return the names of a layer's tensors; None: of those that belong to no layer."""
        return self._names.get(layer, [])

    def tensors(self, layer: int | None) -> dict[str, Lazy]:
        """Return a layer's tensors, none of them read; None: those that belong to no layer.

        A file is mapped as long as one of its tensors is in use: nothing maps what was used, so it can be given back.
        """
        names = self.names(layer)
        files: dict[str, Any] = {
            file: safe_open(self._folder / file, "pt") for file in {self._place[name] for name in names}
        }
        return {name: files[self._place[name]].get_slice(name) for name in names}

    def ranges(self, layer: int | None) -> list[tuple[str, int, int]]:
        """Return where a layer's tensors are: file, first byte, and the byte after the last, in order."""
        found = []
        for name in self.names(layer):
            start, header = self._header(self._place[name])
            first, last = header[name]["data_offsets"]
            found.append((self._place[name], start + first, start + last))
        return sorted(found)

    def read_ahead(self, layer: int) -> int:
        """Bring a layer's tensors into the page cache; return how many bytes they are."""
        total, scratch = 0, bytearray(_READ)
        for name, first, last in self.ranges(layer):
            with (self._folder / name).open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), first, last - first, os.POSIX_FADV_WILLNEED)
                file.seek(first)
                left = last - first
                while left and (count := file.readinto(memoryview(scratch)[: min(left, _READ)])):
                    left -= count
            total += last - first
        return total

    def _header(self, file: str) -> tuple[int, dict[str, Any]]:
        """Return where a file's tensors begin, and its header."""
        if file not in self._headers:
            with (self._folder / file).open("rb") as opened:
                self._headers[file] = read_header(lambda start, stop: opened.read(stop - start))
        return self._headers[file]


def read_header(read: Callable[[int, int], bytes]) -> tuple[int, dict[str, Any]]:
    """Return where a safetensors file's tensors begin, and what it says of each; it reads from its start, in order."""
    start = HEADER_LENGTH + int.from_bytes(read(0, HEADER_LENGTH), "little")
    header: dict[str, Any] = json.loads(read(HEADER_LENGTH, start))
    header.pop("__metadata__", None)
    return start, header


def layer_of(name: str, path: str) -> int | None:
    """Return the layer that a tensor belongs to, None for those outside of all.

    `path` is that of the list of layers in the model; checkpoints put the name of the model before it.
    """
    match = re.search(rf"(?:^|\.){re.escape(path)}\.(\d+)\.", name)
    return int(match[1]) if match else None


def _places(folder: Path) -> dict[str, str]:
    """Return which file each tensor is in."""
    index = folder / INDEX
    if index.exists():
        places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return places
    whole = folder / WHOLE
    if not whole.exists():
        raise ConfigError(
            f"{folder} has no safetensors weights ({INDEX} or {WHOLE}), from which the streamed engine reads. Give a "
            "model that has them."
        )
    with safe_open(whole, "pt") as file:
        return dict.fromkeys(file.keys(), WHOLE)


def local_folder(source: ModelSource, path: str, depth: int) -> Path:
    """Return the folder with a model's files; of a hub's model those that `depth` layers need are fetched first.

    Raises:
        HubError: the hub does not answer.
        ConfigError: it has no safetensors weights.

    """
    if Path(source.path).expanduser().is_dir():
        return Path(source.path).expanduser()
    from huggingface_hub import hf_hub_download, snapshot_download  # noqa: PLC0415 - slow to import
    from huggingface_hub.errors import EntryNotFoundError  # noqa: PLC0415

    name, revision = source.name, source.revision
    with loading(f"the weights of {name!r}", WEIGHTS_ADVICE, repository=name, revision=revision):
        try:
            index = json.loads(Path(hf_hub_download(name, INDEX, revision=revision)).read_text(encoding="utf-8"))
            files = _needed(index["weight_map"], path, depth)
        except EntryNotFoundError:
            files = {WHOLE}
        return Path(snapshot_download(name, revision=revision, allow_patterns=[INDEX, *sorted(files)]))


def _needed(places: dict[str, str], path: str, depth: int) -> set[str]:
    def wanted(names: Iterable[str]) -> Iterable[str]:
        return (name for name in names if (layer := layer_of(name, path)) is None or layer < depth)

    return {places[name] for name in wanted(places)}
