"""What one of several workers found, until all are there and the report can be made of them.

A share lies beside the report as `verify/<scope>-share-0001-of-0004.json`. It counts only for the records that it was
made from: it holds the hash of their keys and bytes, so one that an earlier run left over other records is ignored. A
worker deletes its own before it begins; whoever makes the report deletes all. One that is older than the report is
part of it already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, sha256_hex
from kubesae.ledger import Finding, Mode, Scope, keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kubesae.store import Store
    from kubesae.verify.checks import Checked


class Share(Section):
    """What worker `index` of `of` found."""

    format: Literal[1] = Field(1, description="version of the share")
    scope: Scope = Field(description="what is verified")
    mode: Mode = Field(description="how")
    identity: str = Field(description="identity of the data")
    index: int = Field(description="number of the worker")
    of: int = Field(description="number of workers")
    records_sha256: str = Field(description="SHA-256 over key and SHA-256 of each record of the share")
    findings: tuple[Finding, ...] = Field(description="what is wrong in it")

    @property
    def key(self) -> str:
        """Where it lies."""
        return keys.verify_share(self.scope, self.index, self.of)

    def to_json(self) -> bytes:
        """Return the share's bytes."""
        return canonical_json(self.model_dump(mode="json"))


def contents_hash(records: Iterable[Checked]) -> str:
    """Return the SHA-256 over key and digest of records, a line each, in their order."""
    return sha256_hex("".join(f"{record.key} {sha256_hex(record.data)}\n" for record in records).encode())


def all_there(store: Store, mine: Share) -> bool:
    """Whether every worker has written its share since the last report, by one listing."""
    there = store.list("verify/")
    report = there.get(keys.verify_report(mine.scope))
    wanted = [keys.verify_share(mine.scope, index, mine.of) for index in range(mine.of)]
    return all(key in there and (report is None or there[key].modified >= report.modified) for key in wanted)


def read_shares(store: Store, mine: Share, records: Sequence[Checked]) -> list[Share] | None:
    """Return the shares of all workers; None when one is gone or speaks of other records than `records`."""
    shares = []
    for index in range(mine.of):
        share = _read(store, keys.verify_share(mine.scope, index, mine.of))
        hashed = contents_hash(records[index :: mine.of])
        like_mine = mine.model_copy(update={"index": index, "records_sha256": hashed})
        if share is None or share.model_copy(update={"findings": mine.findings}) != like_mine:
            return None
        shares.append(share)
    return shares


def _read(store: Store, key: str) -> Share | None:
    """Return a share; None when it is gone, which means that another worker has made the report, or is no share."""
    try:
        return Share.model_validate(parse_json_object(store.read(key), key))
    except (MissingError, DamagedError, ValueError):  # pydantic's errors are ValueErrors
        return None
