"""gc: remove orphans and open uploads that are older than a grace time.

    kubesae gc experiment.yaml --grace 24h --dry-run

Programs that are killed leave bytes that count for nothing: tars and moments that no record names, multi-part uploads
that were never completed, temporary files, and the shares of an unfinished verification. Ages are by the store's own
clock. Left alone are a part's tars while it has no record, for whoever collects the part next writes the same names and
commits them; and while its record names what is not there, for then they tell repair which bytes there were.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kubesae.errors import DamagedError
from kubesae.gc.garbage import Garbage
from kubesae.ledger import keys, orphans, parse_record, record_list, require_identity
from kubesae.parallel import READERS, in_order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from kubesae.ledger import Record
    from kubesae.store import ObjectInfo, Store


def find_garbage(store: Store, grace: timedelta) -> Garbage:
    """Find what no record names and is older than `grace`.

    Raises:
        ConfigError: nothing has been collected here.
        DamagedError: a record cannot be read, so that what it names cannot be told from an orphan.

    """
    identity = require_identity(store)
    before = store.now() - grace
    uploads = [upload for upload in store.open_uploads() if upload.started < before]
    objects = store.list("activations/")  # before the records: what is committed meanwhile is not in it
    records = dict(in_order(partial(_record, store), record_list(store), READERS))
    whole = {place for place, record in records.items() if _is_whole(record, place, identity.sha256, objects)}
    loose = orphans(objects, records.values())
    old = {key: objects[key] for key in loose if objects[key].modified < before}
    gone = {key: info for key, info in old.items() if keys.parse_content(key) in whole}
    shares = {key: info for key, info in store.list("verify/").items() if "-share-" in key and info.modified < before}
    return Garbage(gone | shares, uploads, sorted(old.keys() - gone.keys()))


def collect_garbage(store: Store, garbage: Garbage) -> None:
    """Remove it, but for what was written again meanwhile."""
    for key, info in garbage.objects.items():
        now = store.list(key).get(key)
        if now is not None and now.modified == info.modified:
            store.delete(key)
    for upload in garbage.uploads:
        store.abort_upload(upload)


def _record(store: Store, key: str) -> tuple[tuple[int, int] | None, Record]:
    try:
        return keys.parse_record(key), parse_record(store.read(key), store.url_of(key))
    except DamagedError as error:
        raise DamagedError(
            f"Nothing was removed: while a record cannot be read, what it names cannot be told from what nobody "
            f"needs. {error} `kubesae repair` mends it."
        ) from error


def _is_whole(record: Record, place: tuple[int, int] | None, identity: str, objects: Mapping[str, ObjectInfo]) -> bool:
    """Whether it is the record of its part and all that it names is there."""
    named = [key for layer in record.layers for key in (layer.key, layer.moments)]
    theirs = all(key in objects and keys.parse_content(key) == place for key in named)
    return theirs and (record.identity, (record.shard, record.part)) == (identity, place)
