"""Where the tensors of a checkpoint are in its safetensors files, by name and by layer; `weight_readers` read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kubesae.errors import ConfigError
from kubesae.hub import loading
from kubesae.model.truncate import WEIGHTS_ADVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kubesae.model.source import ModelSource

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
HEADER_LENGTH = 8  # bytes of the length of a file's header


class Entry(NamedTuple):
    """Where a tensor is: its file, its first byte there, the byte after its last; and its dtype, as named there."""

    file: str
    first: int
    last: int
    dtype: str
    shape: list[int]


class WeightFiles:
    """A checkpoint's tensors, sorted by the layers of a model that has `layers` under the module path `path`."""

    def __init__(self, folder: Path, path: str, depth: int) -> None:
        """Look into the index, or the one file, in `folder`; no tensor is read.

        Raises:
            ConfigError: there are no safetensors weights, or none for a layer up to `depth`.

        """
        self.folder = folder
        self._headers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._place = self._places()
        self._names: dict[int | None, list[str]] = {}
        for name in self._place:
            self._names.setdefault(layer_of(name, path), []).append(name)
        missing = [layer for layer in range(depth) if layer not in self._names]
        if missing:
            raise ConfigError(f"{folder} has no weights of layer {missing[0]} (under {path!r}). {WEIGHTS_ADVICE}")

    def names(self, layer: int | None) -> list[str]:
        """Return the names of a layer's tensors; None: of those that belong to no layer."""
        return self._names.get(layer, [])

    def ranges(self, layer: int | None) -> list[tuple[str, int, int]]:
        """Return where a layer's tensors are: file, first byte, and the byte after the last, in order."""
        return sorted((entry.file, entry.first, entry.last) for entry in self.entries(layer).values())

    def size(self, layers: Iterable[int]) -> int:
        """Return how many bytes the tensors of `layers` are."""
        return sum(last - first for layer in layers for _, first, last in self.ranges(layer))

    def entries(self, layer: int | None) -> dict[str, Entry]:
        """Return what the headers say of a layer's tensors, by name."""
        found = {}
        for name in self.names(layer):
            start, header = self._header(self._place[name])
            said = header[name]
            first, last = said["data_offsets"]
            found[name] = Entry(self._place[name], start + first, start + last, said["dtype"], said["shape"])
        return found

    def _places(self) -> dict[str, str]:
        """Return which file each tensor is in."""
        index = self.folder / INDEX
        if index.exists():
            places: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return places
        if not (self.folder / WHOLE).exists():
            raise ConfigError(
                f"{self.folder} has no safetensors weights ({INDEX} or {WHOLE}), from which the streamed engine reads. "
                "Give a model that has them."
            )
        return dict.fromkeys(self._header(WHOLE)[1], WHOLE)

    def _header(self, file: str) -> tuple[int, dict[str, Any]]:
        """Return where a file's tensors begin, and its header."""
        if file not in self._headers:
            path = self.folder / file
            with path.open("rb") as opened:
                start, header = read_header(lambda start, stop: opened.read(stop - start))
            wanted = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
            if path.stat().st_size < wanted:
                raise ConfigError(
                    f"{path} is cut off: it has {path.stat().st_size:,} bytes of {wanted:,}. Download it again."
                )
            self._headers[file] = start, header
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
