"""Where an export goes: a folder that gets its files, and as the last one `kubesae.json`, which says what they are.

Nobody else's files are replaced. Our own of an earlier time are the same bytes, so an export that was killed goes on:
until the last file is there, `kubesae-unfinished.json` says what was being written, and another export keeps out.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError, MissingError
from kubesae.experiment import canonical_json, parse_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

ABOUT = "kubesae.json"
UNFINISHED = "kubesae-unfinished.json"
FORMAT = 1
_STEP = 1 << 24


class Target:
    """A folder that is filled.

    target = Target(open_store("out/for-delphi"), {"format": 1, "exported": "delphi"})
    target.put("latents/layers.12/config.json", b"{}")
    target.close()
    """

    def __init__(self, store: Store, about: dict[str, Any]) -> None:
        """Begin to fill `store`; `about`: what `kubesae.json` says besides the files.

        Raises:
            ConfigError: another export is there already.

        """
        self._store, self._about = store, about
        self.files: dict[str, int] = {}
        """size of each file so far, bytes"""
        self._sha256: dict[str, str] = {}
        for key in (ABOUT, UNFINISHED):
            try:
                found = parse_json_object(store.read(key), store.url_of(key))
            except MissingError:
                continue
            if {name: value for name, value in found.items() if name != "files"} != about:
                raise ConfigError(
                    f"{store.url_of(key)} is there and says that its folder is another export; nothing was written. "
                    "Give an empty folder."
                )

    @property
    def url(self) -> str:
        """Where it is."""
        return self._store.url

    def put(self, name: str, data: bytes) -> None:
        """Write a file. Raises ConfigError where there is another one of that name."""
        self._begin()
        if not self._store.create(name, data) and self._store.read(name) != data:
            raise self._other(name)
        self.files[name], self._sha256[name] = len(data), hashlib.sha256(data).hexdigest()

    def put_file(self, name: str, path: Path) -> None:
        """Write a file from one of this machine, of any size. Raises ConfigError where there is another one."""
        digest, size, there, at = hashlib.sha256(), path.stat().st_size, self._size(name), 0
        same = there is None or there == size
        with path.open("rb") as file:
            while piece := file.read(_STEP):
                if there is not None and same:
                    same = self._store.read(name, at, at + len(piece)) == piece
                digest.update(piece)
                at += len(piece)
        if not same:
            raise self._other(name)
        if there is None:
            self._begin()
            self._store.put_file(name, path)
        self.files[name], self._sha256[name] = size, digest.hexdigest()

    def close(self) -> None:
        """Write `kubesae.json`: all files are there."""
        files = {name: {"bytes": size, "sha256": self._sha256[name]} for name, size in self.files.items()}
        self.put(ABOUT, canonical_json(self._about | {"files": files}) + b"\n")
        self._store.delete(UNFINISHED)

    def _begin(self) -> None:
        """Before the first file, say what is being written."""
        if not self.files:
            self._store.create(UNFINISHED, canonical_json(self._about) + b"\n")

    def _size(self, name: str) -> int | None:
        try:
            return self._store.size(name)
        except MissingError:
            return None

    def _other(self, name: str) -> ConfigError:
        return ConfigError(f"{self._store.url_of(name)} is there and holds something else. Give an empty folder.")
