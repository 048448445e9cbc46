"""gc: remove orphans, open uploads and empty folders that are older than a grace time.

    kubesae gc experiment.yaml --grace 24h --dry-run

Programs that are killed leave bytes that count for nothing: tars and moments that no record names, multi-part uploads
that were never completed, temporary files, and the shares of an unfinished verification. Ages are by the store's own
clock. Left alone are a part's tars while it has no record: whoever collects the part next writes the same names, and
commits them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import DamagedError
from kubesae.ledger import keys, orphans, parse_record, record_list, require_identity

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from kubesae.ledger import Record
    from kubesae.store import ObjectInfo, OpenUpload, Store


@dataclass(frozen=True)
class Garbage:
    """What can go.

    Attributes:
        objects: orphans and left-over shares, by key.
        uploads: open uploads.
        waiting: keys of tars and moments of parts without a record: not removed.
        before: all of it was last written before this time.

    """

    objects: dict[str, ObjectInfo]
    uploads: list[OpenUpload]
    waiting: list[str]
    before: datetime

    @property
    def bytes(self) -> int:
        """How much space it takes."""
        return sum(info.size for info in self.objects.values()) + sum(upload.size for upload in self.uploads)


def find_garbage(store: Store, grace: timedelta) -> Garbage:
    """Find what no record names and is older than `grace`.

    Raises:
        ConfigError: nothing has been collected here.
        DamagedError: a record cannot be read, so that what it names cannot be told from an orphan.

    """
    require_identity(store)
    before = store.now() - grace
    uploads = [upload for upload in store.open_uploads() if upload.started < before]
    objects = store.list("activations/")  # before the records: what is committed meanwhile is not in it
    records = _records(store)
    committed = set(records)
    loose = orphans(objects, records.values())
    old = {key: objects[key] for key in loose if objects[key].modified < before}
    gone = {key: info for key, info in old.items() if keys.parse_content(key) in committed}
    shares = {key: info for key, info in store.list("verify/").items() if "-share-" in key and info.modified < before}
    return Garbage(gone | shares, uploads, sorted(old.keys() - gone.keys()), before)


def collect_garbage(store: Store, garbage: Garbage) -> int:
    """Remove it, but for what was written again meanwhile; return the number of empty folders removed too."""
    for key, info in garbage.objects.items():
        now = store.list(key).get(key)
        if now is not None and now.modified == info.modified:
            store.delete(key)
    for upload in garbage.uploads:
        store.abort_upload(upload)
    return store.remove_empty_folders(garbage.before)


def _records(store: Store) -> dict[tuple[int, int] | None, Record]:
    records: dict[tuple[int, int] | None, Record] = {}
    for key in record_list(store):
        try:
            records[keys.parse_record(key)] = parse_record(store.read(key), store.url_of(key))
        except DamagedError as error:
            raise DamagedError(
                f"Nothing was removed: while a record cannot be read, what it names cannot be told from what nobody "
                f"needs. {error} `kubesae repair` mends it."
            ) from error
    return records
