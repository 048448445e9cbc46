"""What comes after collection: verifications, SAEs, interpretations, as far as they are in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field

from kubesae.experiment import Section
from kubesae.ledger import (
    Mode,
    Scope,
    checkpoint_steps,
    keys,
    planned_records,
    read_best,
    read_report,
    record_list_hash,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kubesae.experiment import DataIdentity
    from kubesae.ledger import Plan
    from kubesae.store import Store


class ReportState(Section):
    """A verification."""

    scope: Scope = Field(description="what was verified")
    mode: Mode = Field(description="ledger: records and sizes; full: every byte")
    result: Literal["passed", "failed", "outdated"] = Field(
        description="outdated: the records are no longer those that were verified, or not yet all of the plan"
    )
    tokens: int = Field(description="tokens that were verified")
    findings: int = Field(description="how many things are wrong")


class SaeState(Section):
    """An SAE that has begun."""

    name: str = Field(description="name")
    imported: bool = Field(description="whether another library trained it: it has no steps then, and no metrics")
    checkpoint: int | None = Field(description="step of the last checkpoint")
    best: int | None = Field(description="step of the best checkpoint")
    epoch: int | None = Field(description="epoch that ended there")
    fvu: float | None = Field(description="fraction of variance unexplained there")
    l0: float | None = Field(description="mean active features of a row there")
    evaluated: bool = Field(description="whether there is an evaluation")
    interpreted: bool = Field(description="whether there is an interpretation")


def report_states(
    store: Store, plan: Plan, identity: DataIdentity | None, objects: Iterable[str], pilot_tokens: int
) -> Iterator[ReportState]:
    """The reports that there are; `objects` are the keys below `activations/`."""
    records = {key for key in objects if keys.parse_record(key)}
    for scope in get_args(Scope):
        report = read_report(store, scope)
        if report is None:
            continue
        planned = planned_records(plan, scope, pilot_tokens)
        present = sorted(records if scope == "all" else records.intersection(planned))
        same = identity is not None and report.identity == identity.sha256
        current = same and present == planned and report.records_sha256 == record_list_hash(present)
        result: Literal["passed", "failed", "outdated"] = "passed" if current else "outdated"
        yield ReportState(
            scope=scope,
            mode=report.mode,
            result=result if report.passed else "failed",
            tokens=report.tokens,
            findings=report.finding_count,
        )


def sae_states(output: Store) -> Iterator[SaeState]:
    """The SAEs that there are, by name."""
    objects = output.list("sae/")
    interpreted = output.list("interpret/")
    for name in sorted({key.split("/")[1] for key in objects if key.count("/") > 1}):  # else about all: sweep.html
        steps = checkpoint_steps(key for key in objects if key.startswith(keys.sae_folder(name)))
        best = read_best(output, name) if keys.best(name) in objects else None
        yield SaeState(
            name=name,
            imported=any(key.startswith(keys.imported_folder(name)) for key in objects),
            checkpoint=steps[-1] if steps else None,
            best=best.step if best else None,
            epoch=best.epoch if best else None,
            fvu=best.fvu if best else None,
            l0=best.l0 if best else None,
            evaluated=keys.evaluation(name) in objects,
            interpreted=keys.page(name) in interpreted,
        )
