"""Publish captured parts behind a bounded queue: flags, digest, upload, then, in order, the commit record.

The model never waits for the store unless `queue` parts are waiting already; nothing is dropped. Tars are named by
content and may be uploaded by anyone; the create-only record decides. If a record is there already and names other
bytes, another attempt won: ours are orphans, both environments are reported, the shard goes on.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.experiment import sha256_hex
from kubesae.ledger import Record, keys, read_record
from kubesae.shards import finish_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.collect.capture import Captured
    from kubesae.experiment import DataIdentity
    from kubesae.ledger import Numerics
    from kubesae.shards import FinishedLayer
    from kubesae.store import Store

log = logging.getLogger(__name__)

THREADS = 2
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class FinishedPart:
    """A part in memory, whole: its record, and what the record names."""

    record: Record
    layers: tuple[FinishedLayer, ...]

    def upload(self, store: Store) -> None:
        """Upload all that the record names; nothing of it exists before `commit`."""
        for layer in self.layers:
            layer.upload(store)


def finish_part(captured: Captured, identity: DataIdentity, numerics: Numerics) -> FinishedPart:
    """Take flags, moments and digests of a captured part, and write its record.

    Raises:
        KubesaeError: an activation is not finite.

    """
    part = captured.part
    layers = tuple(
        finish_layer(tar, captured.tokens, captured.flags, part, layer) for layer, tar in captured.tars.items()
    )
    record = Record(
        identity=identity.sha256,
        shard=part.shard,
        part=part.index,
        rows=part.rows,
        tokens_sha256=sha256_hex(memoryview(captured.tokens).cast("B")),
        layers=tuple(layer.record for layer in layers),
        numerics=numerics,
    )
    return FinishedPart(record, layers)


def commit(store: Store, record: Record) -> None:
    """Create the record; one that is there already has won, and is reported where it names other bytes."""
    if store.create(keys.record(record.shard, record.part), record.to_json()):
        return
    theirs = read_record(store, record.shard, record.part)
    if record.hashes() != theirs.hashes():
        log.warning(
            "Shard %d: part %d was committed by another attempt with other bytes; ours are orphans. "
            "Ours: %s. Theirs: %s.",
            record.shard,
            record.part,
            record.numerics.model_dump(),
            theirs.numerics.model_dump(),
        )


class Publisher:
    """Threads that publish parts, and commit them in the order in which they are given.

    One part's digest is taken while another is on its way, and two connections carry more than one does. In memory are,
    besides the part that is being captured, those that wait and one a thread.
    """

    def __init__(
        self,
        store: Store,
        identity: DataIdentity,
        numerics: Callable[[int], Numerics],
        committed: Callable[[Record], None],
        size: int,
    ) -> None:
        """Start the threads.

        Args:
            store: the data store.
            identity: identity of the data.
            numerics: gives the numerics record for a forward batch.
            committed: called, by one thread at a time, with the record of each committed part.
            size: parts that may wait.

        """
        self._store = store
        self._identity = identity
        self._numerics = numerics
        self._committed = committed
        self._waiting: queue.Queue[tuple[int, Captured] | None] = queue.Queue(size)
        self._given = 0
        self._done = 0
        self._turn = threading.Condition()
        self._error: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, name=f"publisher-{i}", daemon=True) for i in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def publish(self, captured: Captured) -> None:
        """Queue a part; waits while the queue is full. Raises what publishing an earlier part has raised."""
        self._put((self._given, captured))
        self._given += 1

    @property
    def waiting(self) -> int:
        """Parts that wait for a thread."""
        return self._waiting.qsize()

    def finish(self) -> None:
        """Wait until all parts are committed. Raises what publishing has raised."""
        self._put(None)
        for thread in self._threads:
            thread.join()
        self._raise()

    def _put(self, item: tuple[int, Captured] | None) -> None:
        while True:
            self._raise()
            try:
                self._waiting.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def stop(self) -> None:
        """Forget the waiting parts and give the others a few seconds: each is whole, or done again next time."""
        end = time.monotonic() + STOP_SECONDS
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while self._error is None:
                item = self._waiting.get()
                if item is None:
                    self._waiting.put(None)  # for the other threads
                    return
                self._publish(*item)
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            with self._turn:
                self._error = self._error or error
                self._turn.notify_all()

    def _publish(self, number: int, captured: Captured) -> None:
        finished = finish_part(captured, self._identity, self._numerics(captured.forward_batch))
        finished.upload(self._store)
        with self._turn:
            self._turn.wait_for(lambda: self._done == number or self._error is not None)
            if self._done != number:  # a part before it failed
                return
            commit(self._store, finished.record)
            self._committed(finished.record)
            self._done += 1
            self._turn.notify_all()
