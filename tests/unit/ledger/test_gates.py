"""A gate opens on a passed report of its own scope, over exactly the records that are there, all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import (
    Finding,
    Mode,
    Plan,
    Scope,
    VerifyReport,
    gate_is_open,
    keys,
    planned_records,
    read_report,
    record_list_hash,
    scope_records,
)
from kubesae.store import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.store import Store

PLAN = Plan(tokens=1003, num_shards=2, context=16, contexts_per_part=12, contexts_per_block=5)
IDENTITY = "a" * 64
PILOT_TOKENS = 200  # two parts of 192


@pytest.fixture
def collected(tmp_path: Path) -> Store:
    """Give a store with every record of the plan."""
    store = open_store(str(tmp_path))
    for key in planned_records(PLAN, "all", PILOT_TOKENS):
        store.put(key, b"{}")
    return store


def write_report(store: Store, scope: Scope, under: str | None = None, **changes: Any) -> None:
    records = scope_records(store, PLAN, scope, PILOT_TOKENS)
    values: dict[str, Any] = {
        "scope": scope,
        "mode": "full",
        "identity": IDENTITY,
        "records": len(records),
        "records_sha256": record_list_hash(records),
        "tokens": 1,
        "tars": 1,
        "bytes": 1,
        "tars_read": 1,
        "flagged": {"1": [1, 2, 3]},
        "orphans": [],
        "findings": [],
        "finding_count": 0,
    }
    store.put(keys.verify_report(under or scope), VerifyReport.model_validate(values | changes).to_json())


def is_open(
    store: Store, scope: Scope, identity: str = IDENTITY, pilot_tokens: int = PILOT_TOKENS, mode: Mode = "ledger"
) -> bool:
    return gate_is_open(store, PLAN, identity, scope, pilot_tokens, mode)


def test_what_belongs_to_a_scope(collected: Store) -> None:
    pilot = [keys.record(0, 0), keys.record(0, 1)]
    assert planned_records(PLAN, "pilot", PILOT_TOKENS) == pilot
    assert scope_records(collected, PLAN, "pilot", PILOT_TOKENS) == pilot
    everything = [keys.record(shard, part) for shard in range(2) for part in range(3)]
    assert planned_records(PLAN, "all", PILOT_TOKENS) == everything
    assert scope_records(collected, PLAN, "all", PILOT_TOKENS) == everything


@pytest.mark.parametrize("scope", ["pilot", "all"])
def test_a_gate_opens_on_a_passed_report_of_its_scope(collected: Store, scope: Scope) -> None:
    assert not is_open(collected, scope)
    write_report(collected, scope)
    assert is_open(collected, scope)
    assert not is_open(collected, "all" if scope == "pilot" else "pilot")
    report = read_report(collected, scope)
    assert report is not None
    assert (report.passed, report.flagged) == (True, {"1": (1, 2, 3)})


def test_a_gate_is_closed_by_another_identity(collected: Store) -> None:
    write_report(collected, "all")
    assert not is_open(collected, "all", identity="b" * 64)


def test_a_gate_is_closed_by_a_finding(collected: Store) -> None:
    finding = Finding(kind="missing tar", key="k", detail="d")
    write_report(collected, "all", findings=[finding.model_dump()], finding_count=1)
    assert not is_open(collected, "all")


def test_a_gate_is_closed_when_the_record_list_changes(collected: Store) -> None:
    write_report(collected, "all")
    write_report(collected, "pilot")
    collected.delete(keys.record(1, 2))
    assert not is_open(collected, "all")
    assert is_open(collected, "pilot")
    collected.put(keys.record(1, 2), b"{}")
    assert is_open(collected, "all")
    collected.put(keys.record(1, 7), b"{}")
    assert not is_open(collected, "all")
    collected.delete(keys.record(0, 1))
    assert not is_open(collected, "pilot")


def test_a_gate_is_closed_while_records_of_its_scope_are_missing(collected: Store) -> None:
    """A report over fewer records passed for a smaller pilot; the pilot of today is larger."""
    for key in (keys.record(0, 1), keys.record(0, 2)):
        collected.delete(key)
    write_report(collected, "pilot")
    assert is_open(collected, "pilot", pilot_tokens=192)
    assert not is_open(collected, "pilot", pilot_tokens=193)


def test_the_pilots_gate_needs_a_report_that_read_every_byte(collected: Store) -> None:
    write_report(collected, "pilot", mode="ledger")
    assert not is_open(collected, "pilot")
    write_report(collected, "all", mode="ledger")
    assert is_open(collected, "all")


def test_a_gate_of_mode_full_needs_a_report_that_read_every_byte(collected: Store) -> None:
    write_report(collected, "all", mode="ledger")
    assert not is_open(collected, "all", mode="full")
    write_report(collected, "all", mode="full")
    assert is_open(collected, "all", mode="full")
    assert is_open(collected, "all", mode="ledger")


def test_a_report_of_another_scope_under_its_key_opens_nothing(collected: Store) -> None:
    for part in range(3):
        collected.delete(keys.record(1, part))
    write_report(collected, "all", under="pilot")
    assert not is_open(collected, "pilot")


def test_a_damaged_report_is_said(collected: Store) -> None:
    collected.put(keys.verify_report("all"), b"x")
    with pytest.raises(DamagedError, match=r"verify/all\.json is not JSON"):
        is_open(collected, "all")
    collected.put(keys.verify_report("all"), b'{"scope":"some"}')
    with pytest.raises(ConfigError, match=r"verify/all\.json: .*fields are not right"):
        read_report(collected, "all")
