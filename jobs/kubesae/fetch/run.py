"""Fetch a model: its config, tokenizer and safetensors weights, from the hub, a folder or a store to another of these.

    kubesae fetch --from HuggingFaceTB/SmolLM2-135M --to s3://bucket/models/SmolLM2-135M
    kubesae fetch --from s3://bucket/models/SmolLM2-135M --to /models/SmolLM2-135M

Every file is compared with size and digest, as far as the source tells them, before it appears at the target; the
config comes last, and without it nothing loads the model. Killed and started again it goes on with the next file; what
is there already is left alone, and for a model that is whole the source is not even asked. In a folder only one fetch
works at a time, and others wait for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, DamagedError
from kubesae.fetch.note import NOTE, FileNote, Note, read_note
from kubesae.hub import MODEL_FILES
from kubesae.store import open_store
from kubesae.store.disk import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubesae.fetch.sources import Source
    from kubesae.store import Store

CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_WEIGHTS = ".safetensors"
# In a folder: what is not whole yet; and what the fetch that is at work holds locked, which has to stay.
STAGING = ".fetch"
LOCK = ".fetch.lock"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model that is at its target: how many files and bytes, and whether it was there before."""

    files: int
    bytes: int
    existed: bool


def fetch(source: Source, target: str, say: Callable[[str], None]) -> Fetched:
    """Bring the model `source` to `target`, a folder or the URL of a store's prefix.

    Raises:
        ConfigError: there is no such model, or it has no safetensors weights.
        DamagedError: a file is not what the source says that it is.
        HubError, StoreError: the hub or a store does not answer.

    """
    store = open_store(target)
    note = read_note(store)
    if note is None or not _done(source, note, store):
        found = source.files()
        with _staging(store, say) as folder:
            note = read_note(store)  # of the one that we may have waited for
            if note is None or not _done(source, note, store):
                return _fetch(source, _needed(source, found, folder), store, note, folder, say)
    return Fetched(len(note.files), sum(file.bytes for file in note.files.values()), existed=True)


def _done(source: Source, note: Note, target: Store) -> bool:
    """Whether the note speaks of this source, and all its files are there."""
    if not note.complete or note.source != source.name or source.asked not in {None, note.asked, note.revision}:
        return False
    there = target.list()
    return all(name in there and there[name].size == file.bytes for name, file in note.files.items())


def _fetch(
    source: Source,
    files: dict[str, FileNote],
    target: Store,
    before: Note | None,
    folder: Path,
    say: Callable[[str], None],
) -> Fetched:
    there: dict[str, FileNote] = {}
    if before and (before.source, before.revision) == (source.name, source.revision):
        sizes = {name: info.size for name, info in target.list().items()}
        there = {name: file for name, file in before.files.items() if sizes.get(name) == file.bytes}
    else:
        for name in (CONFIG, *(before.files if before else ())):  # of another model: nothing shall load a mixture
            target.delete(name)
    files |= {name: file for name, file in there.items() if name in files}
    total, done = sum(file.bytes for file in files.values()), 0
    for name in sorted(files, key=lambda name: (name == CONFIG, name)):
        _write_note(source, target, files, complete=False)
        if name not in there:
            path = source.get(name, folder)
            files[name] = _checked(path, files[name], f"{name} of {source.name}")
            _publish(path, name, target, folder)
        done += files[name].bytes
        say(f"{done:,} / {total:,} bytes ({done / total:.0%}) - {name}")
    _write_note(source, target, files, complete=True)
    return Fetched(len(files), total, existed=False)


def _write_note(source: Source, target: Store, files: dict[str, FileNote], *, complete: bool) -> None:
    note = Note(source=source.name, asked=source.asked, revision=source.revision, complete=complete, files=files)
    target.put(NOTE, note.to_json())


def _needed(source: Source, found: dict[str, FileNote], folder: Path) -> dict[str, FileNote]:
    """Return the files that loading needs: what the model's identity is made of, and no second copy of the weights."""
    files = {name: file for name, file in found.items() if "/" not in name and name.endswith(MODEL_FILES)}
    weights = {name for name in files if name.endswith(_WEIGHTS)}
    if CONFIG not in files or not weights:
        raise ConfigError(
            f"{source.name} has no {CONFIG if CONFIG not in files else 'safetensors weights'} at its top. Give --from "
            "a model in the Hugging Face format, with safetensors weights: pickles are not read."
        )
    named = weights
    if _INDEX in files:
        index = json.loads(source.get(_INDEX, folder).read_text(encoding="utf-8"))
        named = set(index["weight_map"].values())
    elif _WHOLE in files:
        named = {_WHOLE}
    if missing := sorted(named - weights):
        raise ConfigError(f"{source.name} lacks {missing[0]}, which its {_INDEX} names. Give --from a whole model.")
    return {name: file for name, file in files.items() if name not in weights - named - source.beside}


def _checked(path: Path, expected: FileNote, what: str) -> FileNote:
    """Return size and digest of a file; raises DamagedError if they are not the expected ones, and removes it."""
    with disk_errors(path), path.open("rb") as file:
        found = FileNote(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=file.tell())
    if found.bytes != expected.bytes or expected.sha256 not in {None, found.sha256}:
        raise DamagedError(
            f"{what} is not what its source says: {found.bytes:,} bytes with SHA-256 {found.sha256}, where "
            f"{expected.bytes:,} bytes with {expected.sha256 or 'any'} should be. Fetch again; if that does not help, "
            "mend the source."
        )
    return found


def _publish(path: Path, name: str, target: Store, folder: Path) -> None:
    """Let a file appear at the target, whole: by its name alone where it lies in the target's folder already."""
    final = Path(target.url) / name
    if path.is_relative_to(folder) and folder.parent == final.parent:
        with disk_errors(final):
            path.replace(final)
        return
    target.put_file(name, path)
    if path.is_relative_to(folder):
        path.unlink()


@contextmanager
def _staging(target: Store, say: Callable[[str], None]) -> Iterator[Path]:
    """Give a folder for files that are not whole yet: in the target's, where it is one, and then to one fetch alone.

    In the target's folder a file only changes its name to appear.
    """
    if "://" in target.url:
        with tempfile.TemporaryDirectory(prefix="kubesae-fetch-") as temporary:
            yield Path(temporary)
        return
    folder = Path(target.url) / STAGING
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another fetch to {target.url} is at work: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder)
