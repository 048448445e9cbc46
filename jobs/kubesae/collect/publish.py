"""Publish captured parts in order behind a bounded queue: flags, digest, upload, then the commit record.

The model never waits for the store unless `queue` parts are waiting already; nothing is dropped. Tars are named by
content and may be uploaded by anyone; the create-only record decides. If a record is there already and names other
bytes, another attempt won: ours are orphans, both environments are reported, the shard goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from kubesae.experiment import sha256_hex
from kubesae.ledger import Numerics, Record, keys, read_record
from kubesae.shards import codec, finish_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.collect.capture import Captured
    from kubesae.experiment import DataIdentity
    from kubesae.store import Store

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0


class Publisher:
    """A thread that publishes parts in the order they are given."""

    def __init__(
        self,
        store: Store,
        identity: DataIdentity,
        numerics: Callable[[int], Numerics],
        committed: Callable[[int], None],
        size: int,
    ) -> None:
        """Start the thread.

        Args:
            store: the data store.
            identity: identity of the data.
            numerics: gives the numerics record for a forward batch.
            committed: called, on the thread, with the number of each committed part.
            size: parts that may wait.

        """
        self._store = store
        self._identity = identity
        self._numerics = numerics
        self._committed = committed
        self._waiting: queue.Queue[Captured | None] = queue.Queue(size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def publish(self, captured: Captured) -> None:
        """Queue a part; waits while the queue is full. Raises what publishing an earlier part has raised."""
        self._put(captured)

    def finish(self) -> None:
        """Wait until all parts are committed. Raises what publishing has raised."""
        self._put(None)
        self._thread.join()
        self._raise()

    def _put(self, item: Captured | None) -> None:
        while True:
            self._raise()
            try:
                self._waiting.put(item, timeout=0.2)
            except queue.Full:
                continue
            return

    def stop(self) -> None:
        """Forget the waiting parts and give the current one a few seconds: it is whole, or done again next time."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        self._thread.join(STOP_SECONDS)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (captured := self._waiting.get()) is not None:
                self._publish(captured)
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            self._error = error

    def _publish(self, captured: Captured) -> None:
        part, layers = captured.part, []
        for layer, tar in captured.tars.items():
            finished = finish_layer(tar, captured.tokens, captured.flags, part, layer, codec(self._identity.storage))
            finished.upload(self._store)
            layers.append(finished.record)
        record = Record(
            identity=self._identity.sha256,
            shard=part.shard,
            part=part.index,
            rows=part.rows,
            tokens_sha256=sha256_hex(memoryview(captured.tokens).cast("B")),
            layers=tuple(layers),
            numerics=self._numerics(captured.forward_batch),
        )
        if not self._store.create(keys.record(part.shard, part.index), record.to_json()):
            self._compare(record)
        self._committed(part.index)

    def _compare(self, ours: Record) -> None:
        theirs = read_record(self._store, ours.shard, ours.part)
        if ours.hashes() != theirs.hashes():
            log.warning(
                "Shard %d: part %d was committed by another attempt with other bytes; ours are orphans. "
                "Ours: %s. Theirs: %s.",
                ours.shard,
                ours.part,
                ours.numerics.model_dump(),
                theirs.numerics.model_dump(),
            )
