"""Progress and resume, read from the ledger: there is no other state.

Records of a shard are written in part order, so a shard's progress is its highest contiguous part. The functions here
are listings and arithmetic; they open no record unless asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import ConfigError, MissingError
from kubesae.experiment import DataIdentity, parse_json_object, sha256_hex, validate
from kubesae.ledger import keys
from kubesae.ledger.plan import Plan, chunks_done
from kubesae.ledger.record import Record, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far a shard is: `parts` of `total_parts` are committed without a gap, `rows` of `total_rows`."""

    shard: int
    parts: int
    total_parts: int
    rows: int
    total_rows: int
    last_commit: datetime | None

    @property
    def complete(self) -> bool:
        """Whether the shard's quota is committed."""
        return self.parts == self.total_parts

    def chunk(self, chunk: int) -> int:
        """Number of complete chunks of `chunk` rows."""
        return chunks_done(self.rows, self.total_rows, chunk)


def read_identity(store: Store) -> DataIdentity | None:
    """Return the identity of the data in `store`; None when nothing has been collected there."""
    try:
        data = store.read(keys.IDENTITY)
    except MissingError:
        return None
    where = f"{store.url}/{keys.IDENTITY}"
    return validate(DataIdentity, parse_json_object(data, where), where)


def require_identity(store: Store) -> DataIdentity:
    """Return the identity of the data in `store`. Raises ConfigError when nothing has been collected there."""
    identity = read_identity(store)
    if identity is None:
        raise ConfigError(
            f"No activations have been collected at {store.url} yet. Run `kubesae collect` first, or give the prefix "
            "of an experiment."
        )
    return identity


def committed_parts(store: Store, shard: int) -> dict[int, datetime]:
    """Return the parts of `shard` that have a record, and when each was committed, by one listing."""
    parts = {}
    for key, info in store.list(keys.record_folder(shard)).items():
        parsed = keys.parse_record(key)
        if parsed:
            parts[parsed[1]] = info.modified
    return parts


def contiguous(parts: Iterable[int]) -> int:
    """Return how many of the parts 0, 1, 2, ... are there before the first gap."""
    have = set(parts)
    count = 0
    while count in have:
        count += 1
    return count


def shard_progress(store: Store, plan: Plan, shard: int) -> ShardProgress:
    """Return how far `shard` is."""
    commits = committed_parts(store, shard)
    done = min(contiguous(commits), plan.parts(shard))
    return ShardProgress(
        shard=shard,
        parts=done,
        total_parts=plan.parts(shard),
        rows=plan.rows_before(shard, done),
        total_rows=plan.quota(shard),
        last_commit=max(commits.values(), default=None),
    )


def read_record(store: Store, shard: int, part: int) -> Record:
    """Read the record of a part. Raises MissingError when it is not committed, DamagedError when it is no record."""
    key = keys.record(shard, part)
    return parse_record(store.read(key), f"{store.url}/{key}")


def record_list(store: Store) -> list[str]:
    """Return the keys of all records, sorted."""
    return sorted(key for key in store.list(keys.LEDGER) if keys.parse_record(key))


def record_list_hash(record_keys: Iterable[str]) -> str:
    """Return the SHA-256 of the sorted keys, a line each: a gate compares it with the report it opens on."""
    return sha256_hex("".join(f"{key}\n" for key in sorted(record_keys)).encode())
