"""Which documents came before: 8 bytes of each document's hash, a sorted list a unit, stored beside the segments.

A document is dropped when one of the same text stands before it in its unit or in an earlier one. That depends on the
sources alone, whoever works and in whatever order: a list that another worker has not stored yet is made here, by
reading that unit without tokenising it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError, MissingError
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.corpus import HubDataset, LocalFiles
    from kubesae.store import Store


class Digests:
    """The digests of one corpus, for units in ascending order."""

    def __init__(self, store: Store, source: LocalFiles | HubDataset, corpus: str, tag: str, *, shared: bool) -> None:
        """Begin before unit 0.

        Args:
            store: the data store.
            source: the corpus's documents.
            corpus: its name.
            tag: of what decides the documents; lists of another tag are not looked at.
            shared: other workers are waiting for lists: store a unit's before it is tokenised.

        """
        self._store, self._source, self._corpus, self._tag, self._shared = store, source, corpus, tag, shared
        self._before: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._units = 0

    def of(self, unit: int) -> Fresh:
        """Return what tells the new documents of `unit`, in which none has been seen yet."""
        if self._shared:
            self.stored(unit)
        for earlier in range(self._units, unit):
            # Two sorted runs: a stable sort merges them in one pass.
            self._before = np.sort(np.concatenate([self._before, self.stored(earlier)]), kind="stable")
        self._units = max(self._units, unit)
        return Fresh(self, unit, self._before)

    def stored(self, unit: int) -> npt.NDArray[np.uint64]:
        """Return the digests of a unit, uint64, sorted; made now where they are not stored."""
        key = keys.digests(self._corpus, unit, self._tag)
        try:
            return np.asarray(np.load(io.BytesIO(self._store.read(key)), allow_pickle=False))
        except MissingError:
            return self.store(unit, {document.digest for document in self._source.documents(unit)})
        except (ValueError, EOFError) as error:
            raise DamagedError(f"{self._store.url}/{key} is damaged ({error}). Delete it: it is made anew.") from error

    def store(self, unit: int, found: set[int]) -> npt.NDArray[np.uint64]:
        """Store the digests of a unit."""
        digests = np.sort(np.fromiter(found, np.uint64, len(found)))
        out = io.BytesIO()
        np.save(out, digests, allow_pickle=False)
        self._store.put(keys.digests(self._corpus, unit, self._tag), out.getbuffer())
        return digests


class Fresh:
    """Tells documents of one unit that are new from those that came before."""

    def __init__(self, digests: Digests, unit: int, before: npt.NDArray[np.uint64]) -> None:
        """Take the sorted digests of the units before."""
        self._digests, self._unit, self._before = digests, unit, before
        self._here: set[int] = set()

    def add(self, digest: int) -> bool:
        """Note the next document; say whether it is new."""
        new = digest not in self._here
        self._here.add(digest)
        at = int(np.searchsorted(self._before, np.uint64(digest)))
        return new and (at == len(self._before) or int(self._before[at]) != digest)

    def store(self) -> None:
        """Store the digests of the unit, which was read to its end."""
        self._digests.store(self._unit, self._here)
