"""Run a verification of the small experiment, whose plan and pilot are these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kubesae.ledger import Plan, VerifyReport, keys, read_record, read_report
from kubesae.verify import verify

if TYPE_CHECKING:
    from kubesae.ledger import LayerRecord, Scope
    from kubesae.store import Store

    Mode = Literal["ledger", "full"]

PLAN = Plan(tokens=1003, num_shards=2, context=16, contexts_per_part=12, contexts_per_block=5)
PILOT_TOKENS = 200  # parts 0 and 1 of shard 0
RECORD = keys.record(0, 0)


def run(store: Store, mode: Mode, scope: Scope = "all") -> VerifyReport:
    report = verify(store, scope, mode, PILOT_TOKENS)
    assert read_report(store, scope) == report
    assert report.finding_count == len(report.findings)
    return report


def kinds(store: Store, mode: Mode, scope: Scope = "all") -> list[tuple[str, str]]:
    return [(finding.kind, finding.key) for finding in run(store, mode, scope).findings]


def layer_of(store: Store, part: int = 0) -> LayerRecord:
    return read_record(store, 0, part).layers[0]
