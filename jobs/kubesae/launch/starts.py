"""Starts that made no progress: `starts/<who>/<where>-<n>`, because a Pod that is started anew remembers nothing.

Only for back-ends that start a Pod again whatever it died of. `who` is the Pod's name, which a replica keeps; `where`
is a hash of the newest checkpoint of each SAE, so that any new checkpoint begins the count anew. Each start creates the
first number that is not there yet. A start that ends because it was told to takes its number back; any other end than
a fault without a new checkpoint removes all of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kubesae.experiment import canonical_json, sha256_hex
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.store import Store

# As many starts from one checkpoint are tried.
ALLOWED = 3

_CHECKPOINT = re.compile(r"step-(\d{8,})/trainer\.json")


class Starts:
    """Counts the starts of `who` from where the trainings of `saes` are now."""

    def __init__(self, store: Store, saes: Sequence[str], who: str) -> None:
        """Nothing is read or written yet."""
        self._store = store
        self._saes = saes
        self._who = who
        self._mine: str | None = None
        self._from = ""
        self._refused = False

    def begin(self) -> bool:
        """Count a start; False where there have been as many as are allowed: the next one counts from the beginning."""
        self._from, there = self._where(), self._store.list(keys.starts(self._who))
        for number in range(1, ALLOWED + 1):
            key = keys.start(self._who, self._from, number)
            if key not in there and self._store.create(key, b""):
                self._mine = key
                return True
        self.forget()
        self._refused = True
        return False

    def may_go_on(self) -> bool:
        """Say whether another start may follow a fault: there is a new checkpoint, or this was not the last one."""
        progress = self._where() != self._from
        last = self._refused or self._mine == keys.start(self._who, self._from, ALLOWED)
        if progress or last:
            self.forget()
        return progress or not last

    def take_back(self) -> None:
        """Count this start no more: it ended because it was told to."""
        if self._mine:
            self._store.delete(self._mine)

    def forget(self) -> None:
        """Remove all numbers."""
        for key in self._store.list(keys.starts(self._who)):
            self._store.delete(key)

    def _where(self) -> str:
        return sha256_hex(canonical_json({name: self._newest(name) for name in self._saes}))[:12]

    def _newest(self, sae: str) -> int | None:
        folder = keys.checkpoints(sae)
        found = (_CHECKPOINT.fullmatch(key.removeprefix(folder)) for key in self._store.list(folder))
        return max((int(match[1]) for match in found if match), default=None)
