"""Reports that other programs act on: a verification's, and the pointer to an SAE's best checkpoint.

Their schemas live here because gates and the operator read them; the programs that write them are elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, validate
from kubesae.ledger import keys
from kubesae.ledger.damage import Finding  # noqa: TC001 - pydantic needs the type
from kubesae.ledger.progress import record_list, record_list_hash

if TYPE_CHECKING:
    import builtins  # VerifyReport.bytes hides the type

    from kubesae.ledger.plan import Plan
    from kubesae.store import Store

Scope = Literal["pilot", "all"]
Mode = Literal["ledger", "full"]


class VerifyReport(Section):
    """`verify/<scope>.json`."""

    format: Literal[1] = Field(1, description="version of the report")
    scope: Scope = Field(description="what was verified")
    mode: Mode = Field(description="ledger: records and sizes; full: every byte")
    identity: str = Field(description="identity of the data")
    records: int = Field(description="number of records verified")
    records_sha256: str = Field(description="SHA-256 over the sorted keys of these records, a line each")
    tokens: int = Field(description="tokens that the records name")
    tars: int = Field(description="tars that the records name")
    bytes: int = Field(description="bytes of these tars")
    tars_read: int = Field(description="tars of which every byte was read")
    flagged: dict[str, tuple[int, int, int]] = Field(
        description="by layer: rows flagged as first position, special token, norm outlier"
    )
    storage_fvu: dict[str, float] | None = Field(
        None, description="by layer, of a storage dtype of 8 bits: the FVU that storing added, mean of all rows"
    )
    orphans: tuple[str, ...] = Field(description="tars and moments that no record names (the first 100)")
    open_uploads: tuple[str, ...] = Field((), description="uploads that were begun and not ended (the first 100)")
    findings: tuple[Finding, ...] = Field(description="what is wrong (the first 100)")
    finding_count: int = Field(description="how many things are wrong")

    @property
    def passed(self) -> bool:
        """Whether everything is as it should be."""
        return self.finding_count == 0

    def to_json(self) -> builtins.bytes:
        """Return the report's bytes."""
        unknown = {"storage_fvu"} if self.storage_fvu is None else None
        return canonical_json(self.model_dump(mode="json", exclude=unknown))


def planned_records(plan: Plan, scope: Scope, pilot_tokens: int) -> list[str]:
    """Keys of the records that `scope` has when it is complete, sorted."""
    if scope == "pilot":
        return [keys.record(0, part) for part in range(plan.pilot_parts(pilot_tokens))]
    return sorted(keys.record(part.shard, part.index) for part in plan.all_parts())


def scope_records(store: Store, plan: Plan, scope: Scope, pilot_tokens: int) -> list[str]:
    """Keys of the records that lie in the store now and belong to `scope`, sorted."""
    if scope == "all":
        return record_list(store)
    planned = planned_records(plan, scope, pilot_tokens)
    there = store.list(keys.record_folder(0))  # a pilot is of shard 0 alone
    return [key for key in planned if key in there]


def read_report(store: Store, scope: Scope) -> VerifyReport | None:
    """Return the report of a scope; None when it was not verified."""
    key = keys.verify_report(scope)
    try:
        data = store.read(key)
    except MissingError:
        return None
    return validate(VerifyReport, parse_json_object(data, f"{store.url}/{key}"), f"{store.url}/{key}")


def gate_is_open(store: Store, plan: Plan, identity: str, scope: Scope, pilot_tokens: int, mode: Mode) -> bool:
    """Whether a passed report of `scope` speaks of exactly the data and the records that are in the store now.

    The records must be all that the plan has for the scope. A gate that asks for mode `full`, and the pilot's always,
    opens only on a report that read every byte.
    """
    report = read_report(store, scope)
    if report is None or report.scope != scope or not opens(report, identity, mode):
        return False
    records = scope_records(store, plan, scope, pilot_tokens)
    complete = records == planned_records(plan, scope, pilot_tokens)
    return complete and report.records_sha256 == record_list_hash(records)


def opens(report: VerifyReport, identity: str, mode: Mode) -> bool:
    """Whether a report opens the gate of its scope, if it speaks of the records that are there."""
    thorough = report.mode == "full" or (report.scope == "all" and mode == "ledger")
    return report.passed and report.identity == identity and thorough
