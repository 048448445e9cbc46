"""What a verification says to a person: a line for each check that holds, and for each finding what is wrong where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.ledger import chunks_done

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.experiment import DataIdentity
    from kubesae.ledger import Plan, VerifyReport

SHOWN = 20


def report_lines(report: VerifyReport, identity: DataIdentity, plan: Plan, chunk: int) -> Iterator[str]:
    """Lines of a report: check lines when it passed, else its findings."""
    if report.passed:
        yield from _passed(report, identity, plan, chunk)
    else:
        yield f"✗ {report.finding_count} thing{'s are' if report.finding_count > 1 else ' is'} wrong:"
        for finding in report.findings[:SHOWN]:
            yield f"  {finding.kind}: {finding.key}: {finding.detail}"
        if report.finding_count > SHOWN:
            yield f"  ... {report.finding_count - SHOWN} more in verify/{report.scope}.json"
    for orphan in report.orphans[:SHOWN]:
        yield f"  orphan (no record names it, harmless): {orphan}"
    if len(report.orphans) > SHOWN:
        yield f"  ... and {len(report.orphans) - SHOWN} more orphans"
    if report.mode == "ledger":
        yield f"{report.tars} tars were not read; `kubesae verify --mode full` reads every byte"
    if report.passed and report.scope == "pilot":
        yield "✓ All checks passed!"


def _passed(report: VerifyReport, identity: DataIdentity, plan: Plan, chunk: int) -> Iterator[str]:
    if report.scope == "pilot":
        counts = [chunks_done(report.tokens, report.tokens, chunk)]
    else:
        counts = sorted({chunks_done(q, q, chunk) for q in map(plan.quota, range(plan.num_shards))})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} or {counts[-1]}"
    yield f"✓ Found {shown} activation chunks per shard"
    yield f"✓ Total tokens: {report.tokens:,}"
    yield f"✓ Activation shape verified: (n_tokens, {identity.d_model})"
    yield "✓ All chunks valid!"
