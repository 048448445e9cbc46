"""Where a model comes from: the hub, a folder, or a prefix of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError
from kubesae.experiment import is_path, sha256_hex
from kubesae.fetch.note import FileNote, read_note
from kubesae.hub import loading
from kubesae.store import open_store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kubesae.store import Store

MEND = "Give --from the id of a model that the hub has and gives you (HF_TOKEN), a folder, or s3://bucket/prefix."


class Source(ABC):
    """A model: its files, each of which can be had as a local file."""

    name: str
    """what the note at the target calls it: no local path"""
    asked: str | None = None
    """revision that the user wants"""
    revision: str | None = None
    """commit, where it comes from the hub; known once its files are"""
    beside: frozenset[str] = frozenset()
    """weight files that no index names and that are wanted all the same"""

    @abstractmethod
    def files(self) -> dict[str, FileNote]:
        """Return all files, and what is known of each."""

    @abstractmethod
    def get(self, name: str, folder: Path) -> Path:
        """Return a file on the local disk; one that is not there is brought to below `folder`."""

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes `[start, stop)` of a file, and ask for no others."""


@dataclass
class StoreSource(Source):
    """A prefix of a store, or a folder."""

    store: Store
    name: str

    def files(self) -> dict[str, FileNote]:
        """See `Source.files`: digests are known where `kubesae fetch` wrote the files."""
        note = read_note(self.store)
        if note and not note.complete:
            raise ConfigError(
                f"The model at {self.store.url} is not whole: the `kubesae fetch` that writes it has not ended. Wait "
                "for it, or run it again."
            )
        known = note.files if note else {}
        sizes = {name: info.size for name, info in self.store.list().items()}
        return {
            name: known[name] if name in known and known[name].bytes == size else FileNote(bytes=size, sha256=None)
            for name, size in sizes.items()
        }

    def get(self, name: str, folder: Path) -> Path:
        """See `Source.get`."""
        here = Path(self.store.url) / name
        if here.is_file():
            return here
        self.store.get_file(name, folder / name)
        return folder / name

    def read(self, name: str, start: int, stop: int) -> bytes:
        """See `Source.read`."""
        return self.store.read(name, start, stop)


@dataclass
class HubSource(Source):
    """A model of the Hugging Face hub."""

    name: str
    asked: str | None

    def files(self) -> dict[str, FileNote]:
        """See `Source.files`: the hub tells the digests of large files."""
        with self._loading("the list of files", self.name):
            from huggingface_hub import HfApi  # noqa: PLC0415 - an extra, and slow to import

            info = HfApi().model_info(self.name, revision=self.asked, files_metadata=True)
        self.revision = info.sha
        return {
            file.rfilename: FileNote(bytes=file.size or 0, sha256=file.lfs.sha256 if file.lfs else None)
            for file in info.siblings or ()
        }

    def get(self, name: str, folder: Path) -> Path:
        """See `Source.get`: the hub's client begins an interrupted file anew."""
        with self._loading(name, None):
            from huggingface_hub import hf_hub_download  # noqa: PLC0415

            return Path(hf_hub_download(self.name, name, revision=self.revision, local_dir=folder))

    def read(self, name: str, start: int, stop: int) -> bytes:
        """See `Source.read`."""
        with self._loading(name, None):
            from huggingface_hub import HfFileSystem  # noqa: PLC0415

            data: bytes = HfFileSystem().cat_file(f"{self.name}@{self.revision}/{name}", start=start, end=stop)
            return data

    def _loading(self, what: str, repository: str | None) -> AbstractContextManager[None]:
        return loading(f"{what} of model {self.name!r}", MEND, repository=repository, revision=self.asked)


def find_source(text: str, revision: str | None) -> Source:
    """Return the model that a user means: s3://bucket/prefix, a folder, or else a hub id.

    Raises:
        ConfigError: it is a path where no folder is.

    """
    folder = Path(text).expanduser()
    if "://" in text:
        return StoreSource(open_store(text), text.rstrip("/"))
    if folder.is_dir():
        path = folder.resolve()
        return StoreSource(open_store(str(path)), f"{path.name}@{sha256_hex(str(path).encode())[:12]}")
    if is_path(text):
        raise ConfigError(f"There is no folder {text}. {MEND}")
    return HubSource(text, revision)
