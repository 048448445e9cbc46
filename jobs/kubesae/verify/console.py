"""What a verification says to a person: a line for each check that holds, and for each finding what is wrong where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.ledger import Plan, chunk_edges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.ledger import VerifyReport
    from kubesae.verify.run import ShareResult

SHOWN = 20


def report_lines(report: VerifyReport, identity: DataIdentity, experiment: Experiment) -> Iterator[str]:
    """Lines of a report: check lines when it passed, else its findings."""
    if report.passed:
        yield f"✓ Found {_chunks(report, identity, experiment)} activation chunks per shard"
        yield f"✓ Total tokens: {report.tokens:,}"
        yield f"✓ Activation shape verified: (n_tokens, {identity.d_model})"
        for layer, fvu in (report.storage_fvu or {}).items():
            yield f"✓ Layer {layer}: stored as {identity.storage}, which added an FVU of {fvu:.5f}"
        yield "✓ All chunks valid!"
    else:
        yield f"✗ {report.finding_count} thing{'s are' if report.finding_count > 1 else ' is'} wrong:"
        for finding in report.findings[:SHOWN]:
            yield f"  {finding.kind}: {finding.key}: {finding.detail}"
        if report.finding_count > SHOWN:
            yield f"  ... {report.finding_count - SHOWN} more in verify/{report.scope}.json"
        yield "`kubesae repair` makes it again"
    yield from _harmless("orphan (no record names it, harmless)", report.orphans)
    yield from _harmless("open upload (begun and not ended, harmless)", report.open_uploads)
    if report.orphans or report.open_uploads:
        yield "`kubesae gc` removes what nobody needs"
    if report.mode == "ledger":
        yield f"{report.tars} tars were not read; `kubesae verify --mode full` reads every byte"
    if report.passed and report.scope == "pilot":
        yield "✓ All checks passed!"


def share_line(result: ShareResult, index: int, of: int) -> str:
    """Say what one of several workers has done."""
    wrong = f"{len(result.findings)} wrong" if result.findings else "nothing wrong"
    rest = "" if result.verification else "; the report is made by the last of the shares"
    return f"Share {index} of {of}: {result.parts} parts checked, {wrong}{rest}"


def _harmless(what: str, listed: Sequence[str]) -> Iterator[str]:
    for key in listed[:SHOWN]:
        yield f"  {what}: {key}"
    if len(listed) > SHOWN:
        yield f"  ... and {len(listed) - SHOWN} more"


def _chunks(report: VerifyReport, identity: DataIdentity, experiment: Experiment) -> str:
    plan = Plan.of(identity)
    if report.scope == "pilot":
        return str(len(chunk_edges(min(experiment.pilot.tokens, plan.quota(0)), experiment.pilot.chunk)))
    counts = sorted({len(chunk_edges(plan.quota(shard), experiment.chunk)) for shard in range(plan.num_shards)})
    return " or ".join(map(str, counts))
