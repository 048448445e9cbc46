"""A model without its later layers, as a source to fetch from: of its weights only what is needed is ever asked for.

    kubesae truncate --from moonshotai/Kimi-K2-Thinking --layers 45 --to /models/Kimi-K2-45

The files keep their names. Of one that holds needed tensors among others a new one is made, by ranged reads; one that
holds nothing else is taken as it is. The config says how many layers there are now, so that transformers loads it as
any other model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path  # noqa: TC003 - dataclasses look at it
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError
from kubesae.fetch.note import FileNote
from kubesae.fetch.sources import Source
from kubesae.model.head import FINAL_NORM, HEAD
from kubesae.model.source import ModelSource, read_config
from kubesae.model.weight_files import HEADER_LENGTH, INDEX, WHOLE, layer_of, read_header
from kubesae.store.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable

CONFIG = "config.json"

_READ = 64 << 20
_DEPTH = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor: its entry in the header of the file that holds it, and where its bytes are there."""

    file: str
    entry: dict[str, Any]
    start: int
    stop: int


@dataclass
class TruncatedSource(Source):
    """The layers up to `deepest` of the model `inner`; `with_head`: and what comes after all layers, apart."""

    inner: Source
    deepest: int
    with_head: bool
    folder: Path
    """for small files of `inner`"""
    _found: dict[str, FileNote] = field(default_factory=dict)
    _made: dict[str, dict[str, Piece]] = field(default_factory=dict)
    _small: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take its name from the whole model's."""
        self.name = f"{self.inner.name}, layers 0 to {self.deepest}{' and head' if self.with_head else ''}"
        self.asked = self.inner.asked
        self.beside = frozenset({HEAD} if self.with_head else ())

    def files(self) -> dict[str, FileNote]:
        """See `Source.files`; reads the config, the index and headers of weight files.

        Raises:
            ConfigError: the model has no such layer, or no safetensors weights.

        """
        self._found = self.inner.files()
        self.revision = self.inner.revision
        config = self._json(CONFIG) if CONFIG in self._found else {}
        places = self._places()
        if not config or not places:
            return dict(self._found)  # whoever fetches says what is missing
        self._small[CONFIG] = _dumped(truncated(config, self.deepest + 1, self.inner.name))
        (self.folder / CONFIG).write_bytes(self._small[CONFIG])
        wanted, head = self._sorted(places)
        self._cut(places, wanted, head)
        if INDEX in self._found:
            kept = {name: place for name, place in places.items() if name in wanted}
            total = sum(piece.stop - piece.start for made in self._made.values() for piece in made.values())
            self._small[INDEX] = _dumped({"metadata": {"total_size": total}, "weight_map": kept})
        weights = {*places.values(), INDEX, CONFIG}
        return (
            {name: note for name, note in self._found.items() if name not in weights}
            | {name: self._note(name) for name in self._made}
            | {name: FileNote(bytes=len(data), sha256=None) for name, data in self._small.items()}
        )

    def get(self, name: str, folder: Path) -> Path:
        """See `Source.get`."""
        path = folder / name
        if name in self._small:
            with disk_errors(path):
                path.write_bytes(self._small[name])
            return path
        if name not in self._made or self._is_whole(name):
            return self.inner.get(name, folder)
        header, pieces = _header(self._made[name]), self._made[name].values()
        with disk_errors(path), path.open("wb") as file:
            file.write(header)
            for piece in pieces:
                for start in range(piece.start, piece.stop, _READ):
                    file.write(self.inner.read(piece.file, start, min(start + _READ, piece.stop)))
        return path

    def read(self, name: str, start: int, stop: int) -> bytes:
        """See `Source.read`: of files that are not made anew."""
        return self.inner.read(name, start, stop)

    def _json(self, name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.inner.get(name, self.folder).read_text(encoding="utf-8"))
        return values

    def _places(self) -> dict[str, str]:
        """Return which file each tensor is in."""
        if INDEX in self._found:
            places: dict[str, str] = self._json(INDEX)["weight_map"]
            return places
        return dict.fromkeys(self._pieces(WHOLE), WHOLE) if WHOLE in self._found else {}

    def _sorted(self, places: Iterable[str]) -> tuple[set[str], set[str]]:
        """Return the names of the tensors that the cut model loads, and of those that come after all layers."""
        path, outside = _base(self.folder, self.deepest + 1)
        layers = {name: layer_of(name, path) for name in places}
        wanted = {name for name, layer in layers.items() if layer is not None and layer <= self.deepest}
        ours = {name for name, layer in layers.items() if layer is None and _is_one_of(name, outside)}
        norms = {name for name in ours if FINAL_NORM.search(name)}
        head = norms | {name for name, layer in layers.items() if layer is None and name not in ours}
        return wanted | ours, head

    def _cut(self, places: dict[str, str], wanted: set[str], head: set[str]) -> None:
        """Note of which tensors each new file is made."""
        files = {places[name] for name in (wanted | head if self.with_head else wanted)}
        pieces = {file: self._pieces(file) for file in sorted(files)}
        for file in sorted({places[name] for name in wanted}):
            self._made[file] = {name: piece for name, piece in pieces[file].items() if name in wanted}
        if self.with_head:
            self._made[HEAD] = {name: pieces[places[name]][name] for name in sorted(head)}

    def _pieces(self, file: str) -> dict[str, Piece]:
        """Return the tensors of a file by name, in the order of their bytes."""
        start, header = read_header(partial(self.inner.read, file))
        found = {
            name: Piece(file, entry, start + entry["data_offsets"][0], start + entry["data_offsets"][1])
            for name, entry in header.items()
        }
        return dict(sorted(found.items(), key=lambda item: item[1].start))

    def _is_whole(self, name: str) -> bool:
        """Whether a file is the inner model's: what it would be made of is all that there is."""
        found = self._found.get(name)
        pieces = self._made[name].values()
        begin = min(piece.start for piece in pieces)
        return found is not None and begin + sum(piece.stop - piece.start for piece in pieces) == found.bytes

    def _note(self, name: str) -> FileNote:
        if self._is_whole(name):
            return self._found[name]
        pieces = self._made[name]
        size = len(_header(pieces)) + sum(piece.stop - piece.start for piece in pieces.values())
        return FileNote(bytes=size, sha256=None)


def truncated(config: dict[str, Any], depth: int, name: str) -> dict[str, Any]:
    """Return a config.json with `depth` layers; lists with an entry a layer are cut, too.

    Raises:
        ConfigError: the model has fewer layers, or does not say how many.

    """
    text = config.get("text_config") or config
    key = next((key for key in _DEPTH if key in text), None)
    if key is None or not 0 < depth <= text[key]:
        there = f"has layers 0 to {text[key] - 1}" if key else "does not say how many layers it has"
        raise ConfigError(f"Layer {depth - 1} is out of range: {name} {there}. Set --layers to the deepest one needed.")
    cut = {
        name: value[:depth] if isinstance(value, list) and len(value) == text[key] else value
        for name, value in text.items()
    } | {key: depth}
    return config | {"text_config": cut} if "text_config" in config else cut


def _base(folder: Path, depth: int) -> tuple[str, frozenset[str]]:
    """Return the path of a model's layers, and the names of what its base model has besides them."""
    import torch  # noqa: PLC0415 - seconds to import

    from kubesae.model.skeleton import Skeleton  # noqa: PLC0415

    config = read_config(folder, None, trust_remote_code=False)
    source = ModelSource(str(folder), "", "", config, trust_remote_code=False)
    skeleton = Skeleton(source, depth, "bfloat16", torch.device("cpu"))
    inside = f"{skeleton.path}."
    return skeleton.path, frozenset(name for name in skeleton.model.state_dict() if not name.startswith(inside))


def _is_one_of(name: str, keys: frozenset[str]) -> bool:
    """Whether a checkpoint's tensor is one of a base model's, which checkpoints call by a name before it."""
    parts = name.split(".")
    return any(".".join(parts[first:]) in keys for first in range(len(parts)))


def _header(pieces: dict[str, Piece]) -> bytes:
    """Return the beginning of a safetensors file with these tensors, in this order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, piece in pieces.items():
        begin, end = end, end + piece.stop - piece.start
        header[name] = piece.entry | {"data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_LENGTH)
    return len(text).to_bytes(HEADER_LENGTH, "little") + text


def _dumped(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
