"""Where documents come from: a hub dataset streamed by its data files, or local text, JSON lines, Parquet, source code.

A source is a list of *units*, each read by itself and in any order: a data file of a hub dataset, a JSON lines or
Parquet file, or a group of text files. Units are put in an order that depends only on the experiment's seed.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.corpus.chat import read_messages
from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json, is_path, sha256_hex
from kubesae.hub import loading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.corpus.chat import Messages
    from kubesae.experiment import Corpus

FILES_PER_UNIT = 64
_ROW_FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet"}
_SKIPPED_FOLDERS = {".git", "__pycache__", "node_modules", ".venv", "site-packages"}


@dataclass(frozen=True, slots=True)
class TextDocument:
    """One document: its name within the corpus, and its text, or the messages that its text is to be made of."""

    name: str
    text: str = ""
    messages: Messages = ()

    @property
    def digest(self) -> int:
        """First 8 bytes of the SHA-256 of its text, or of its messages as canonical JSON: one number for one text."""
        data = canonical_json(self.messages) if self.messages else self.text.encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


@dataclass(frozen=True)
class LocalFiles:
    """Files on this machine. `builder` is None where a file is a document, else the `datasets` builder of its rows."""

    root: Path
    files: tuple[Path, ...]
    builder: str | None
    field: str
    messages: tuple[str, ...] | None = None

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.files) if self.builder else -(-len(self.files) // FILES_PER_UNIT)

    def revision(self) -> str:
        """SHA-256 over the files' names and contents."""
        entries = []
        for path in self.files:
            with path.open("rb") as file:
                entries.append([self._name(path), hashlib.file_digest(file, "sha256").hexdigest()])
        return sha256_hex(canonical_json(sorted(entries)))

    def documents(self, unit: int) -> Iterator[TextDocument]:
        """Documents of one unit, in a fixed order. Raises ConfigError when a file is not what it should be."""
        if self.builder is None:
            for path in self.files[unit * FILES_PER_UNIT : (unit + 1) * FILES_PER_UNIT]:
                yield TextDocument(self._name(path), path.read_text(encoding="utf-8", errors="replace"))
            return
        from datasets import load_dataset  # noqa: PLC0415 - an extra, and slow to import

        path = self.files[unit]
        try:
            rows = load_dataset(self.builder, data_files=glob.escape(str(path)), split="train", streaming=True)
            yield from _rows(rows, self.field, self.messages, self._name(path))
        except ValueError as error:  # pyarrow's errors are ValueErrors
            raise ConfigError(f"{path} cannot be read as {self.builder}: {error}. Mend it, or leave it out.") from error

    def _name(self, path: Path) -> str:
        """Name of a document: UTF-8, whatever bytes its file name has."""
        return os.fsencode(path.relative_to(self.root)).decode("utf-8", "replace")


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub, streamed; a unit is one of its data files."""

    dataset: Any
    commit: str
    field: str
    messages: tuple[str, ...] | None = None

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.dataset.n_shards)

    def revision(self) -> str:
        """The resolved commit."""
        return self.commit

    def documents(self, unit: int) -> Iterator[TextDocument]:
        """Documents of one unit, in a fixed order."""
        rows = self.dataset.shard(self.units, unit)
        yield from _rows(rows, self.field, self.messages, f"file-{unit:05d}")


def open_source(corpus: Corpus, seed: int) -> LocalFiles | HubDataset:
    """Find the files or dataset of a corpus. Raises ConfigError when there are none."""
    if corpus.format == "hub" or (corpus.format == "auto" and not is_path(corpus.source)):
        return _open_hub(corpus)
    return _open_local(corpus, seed)


def _matches(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.exists():
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - may be absolute


def _open_local(corpus: Corpus, seed: int) -> LocalFiles:
    matches = _matches(corpus.source)
    if not matches:
        raise ConfigError(f"Corpus {corpus.name}: no file matches {corpus.source!r}. Give a file, a folder or a glob.")
    found = matches[0]
    root = found if len(matches) == 1 and found.is_dir() else _common_folder(matches)
    walks = (_walk(path) if path.is_dir() else [path] for path in matches)
    files = sorted({path for path in itertools.chain.from_iterable(walks) if path.is_file()})
    builder = _builder(corpus, files)
    if corpus.messages and not builder:
        raise ConfigError(
            f"Corpus {corpus.name}: `messages` names columns, and {corpus.source!r} has text files. Give JSON lines, "
            "Parquet or a dataset, or leave `messages` out."
        )
    if builder:
        files = [path for path in files if _ROW_FORMATS.get(path.suffix) == builder and path.stat().st_size]
    else:
        files = [path for path in files if _is_text(path)]
    if not files:
        kind = "" if corpus.format == "auto" else f"{corpus.format} "
        raise ConfigError(
            f"Corpus {corpus.name}: there is no {kind}file with text in {corpus.source!r}. Check `source` and `format`."
        )
    order = np.random.Generator(np.random.PCG64([seed, 1])).permutation(len(files))
    return LocalFiles(root, tuple(files[i] for i in order), builder, corpus.field, corpus.messages)


def _builder(corpus: Corpus, files: Sequence[Path]) -> str | None:
    """Which `datasets` builder reads the rows of the files; None where a file is a document.

    One JSON lines or Parquet file makes a folder one of rows. A `.json` beside other text is just another document.
    """
    if corpus.format != "auto":
        return {"jsonl": "json", "parquet": "parquet"}.get(corpus.format)
    kinds = {path.suffix for path in files}
    rows = {_ROW_FORMATS[kind] for kind in kinds if kind in _ROW_FORMATS and (kind != ".json" or kinds == {".json"})}
    if len(rows) > 1:
        raise ConfigError(f"Corpus {corpus.name}: {corpus.source!r} has JSON lines and Parquet. Set its `format`.")
    return next(iter(rows), None)


def _common_folder(paths: Sequence[Path]) -> Path:
    folders = [path.parent for path in paths]
    shared = folders[0]
    while not all(folder.is_relative_to(shared) for folder in folders):
        shared = shared.parent
    return shared


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not _SKIPPED_FOLDERS.intersection(path.relative_to(folder).parts):
            yield path


def _is_text(path: Path) -> bool:
    """Whether a file is text: not empty, no NUL byte in its first 4 kB, which decode as UTF-8 up to a cut character."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head or b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True


def _open_hub(corpus: Corpus) -> HubDataset:
    from datasets import load_dataset  # noqa: PLC0415 - an extra, and slow to import
    from huggingface_hub import HfApi  # noqa: PLC0415

    with loading(
        f"the dataset {corpus.source!r} of corpus {corpus.name} (there is no such local path)",
        "Give a path that is there, or a dataset id with its `config`, `split` and `revision`.",
        repository=corpus.source,
    ):
        commit = HfApi().dataset_info(corpus.source, revision=corpus.revision).sha
        dataset = load_dataset(corpus.source, corpus.config, split=corpus.split, revision=commit, streaming=True)
    return HubDataset(dataset, str(commit), corpus.field, corpus.messages)


def _rows(rows: Any, field: str, messages: tuple[str, ...] | None, unit: str) -> Iterator[TextDocument]:
    for number, row in enumerate(rows):
        name = f"{unit}:{number}"
        missing = [column for column in messages or (field,) if column not in row]
        if missing:
            raise ConfigError(
                f"{unit} has no column {missing[0]!r}; it has {', '.join(row)}. Set the corpus's "
                f"`{'messages' if messages else 'field'}`."
            )
        if messages:
            yield TextDocument(name, messages=read_messages(row, messages, f"{unit}, row {number}"))
            continue
        if not isinstance(row[field], str):
            raise ConfigError(
                f"{unit}, row {number}: column {field!r} holds {type(row[field]).__name__}, not text. Set `field`."
            )
        yield TextDocument(name, row[field])
