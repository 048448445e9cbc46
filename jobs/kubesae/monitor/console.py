"""What a person reads of a snapshot: a line a thing, for a shard its progress and beside it the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.units import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.ledger import Collection, ShardState
    from kubesae.monitor.observe import Snapshot
    from kubesae.monitor.phases import ReportState, SaeState


@dataclass(frozen=True, slots=True)
class Row:
    """A line, what stands beside it or below, and of a shard its state."""

    text: str
    details: str = ""
    state: str = ""


def snapshot_rows(snapshot: Snapshot) -> Iterator[Row]:
    """Rows of everything."""
    prepared = snapshot.prepared
    if prepared is None:
        yield Row("Prepare: not done yet")
    else:
        yield Row(
            f"Prepare: {prepared.tokens:,} tokens in {prepared.shards} shards, from {', '.join(prepared.corpora)}"
        )
    yield from collection_rows(snapshot.collection)
    for report in snapshot.reports:
        yield Row(_report(report))
    for sae in snapshot.saes:
        yield Row(_sae(sae))


def collection_rows(collection: Collection) -> Iterator[Row]:
    """Rows of the shards, and of all of them where there are several."""
    for state in collection.shards:
        yield Row(
            f"Shard {state.shard}: {state.tokens:,} / {state.total:,} tokens ({state.tokens / state.total:.1%}) "
            f"- Chunk {state.chunk}",
            ", ".join(_details(state)),
            state.state,
        )
    if len(collection.shards) > 1:
        share = collection.tokens / collection.total
        details = [*_speed(collection.rate, collection.eta), size(collection.bytes)]
        yield Row(f"Total: {collection.tokens:,} / {collection.total:,} tokens ({share:.1%})", ", ".join(details))


def _details(state: ShardState) -> Iterator[str]:
    if state.state == "waiting":
        yield "not begun"
        return
    yield size(state.bytes)
    if state.state == "complete":
        yield "complete"
        return
    yield from _speed(state.rate, state.eta)
    yield f"last commit {duration(state.age or 0.0)} ago"
    if state.state == "silent":
        usual = "" if state.interval is None else f", usually every {duration(state.interval)}"
        yield f"SILENT: is its worker running{usual}?"
    if state.state == "slow":
        yield "SLOW: less than half the median rate"


def _speed(rate: float | None, eta: float | None) -> Iterator[str]:
    if rate is not None:
        yield f"{rate:,.0f} tokens/s"
    if eta is not None:
        yield f"{duration(eta)} left"


def _report(report: ReportState) -> str:
    name = "Pilot" if report.scope == "pilot" else "Verify"
    how = f"{report.tokens:,} tokens, mode {report.mode}"
    if report.result == "failed":
        return f"{name}: ✗ {report.findings} thing{'s' * (report.findings > 1)} wrong ({how})"
    if report.result == "outdated":
        return f"{name}: ! passed, but not for all that is to be there ({how})"
    return f"{name}: ✓ passed ({how})"


def _sae(sae: SaeState) -> str:
    facts = ["imported"] * sae.imported
    if sae.best is not None:
        quality = "" if sae.fvu is None or sae.l0 is None else f", FVU {sae.fvu:.4f}, L0 {sae.l0:.1f}"
        facts.append(f"best at step {sae.best:,} (epoch {sae.epoch}{quality})")
    if not sae.imported:
        facts.append("no checkpoint yet" if sae.checkpoint is None else f"last checkpoint at step {sae.checkpoint:,}")
    facts += ["evaluated"] * sae.evaluated + ["interpreted"] * sae.interpreted
    return f"SAE {sae.name}: {', '.join(facts)}"
