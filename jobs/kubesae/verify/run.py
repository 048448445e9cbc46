"""Verify: is every part of the plan there, and is it what its record says?

    kubesae verify experiment.yaml --scope all --mode full

Mode `ledger` parses every record and compares the size of every object by listing; `full` reads every byte as well.
The report is what gates open on. Scope `all`, once it passes, also writes the index and the merged moments. The work
can be divided among workers: worker I of N checks records I, I+N, ..., and whoever finds all shares makes the report,
which has the same bytes as one worker's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kubesae.errors import AccessError, StoreError
from kubesae.ledger import (
    Damage,
    Finding,
    Mode,
    Scope,
    VerifyReport,
    keys,
    orphans,
    planned_records,
    record_list_hash,
    scope_records,
    share_of,
    storage_fvu,
)
from kubesae.parallel import in_order
from kubesae.verify.checks import Checked, check_part, read_part
from kubesae.verify.context import Context
from kubesae.verify.derived import Derived
from kubesae.verify.share import Share, all_there, contents_hash, read_shares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kubesae.ledger import Record
    from kubesae.store import Store

log = logging.getLogger(__name__)

LISTED = 100


@dataclass(frozen=True)
class Verification:
    """A report, and all findings, of which the report lists the first 100."""

    report: VerifyReport
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ShareResult:
    """What one worker did: `parts` checked, `findings`, and the report if it was the one to make it."""

    parts: int
    findings: tuple[Finding, ...]
    verification: Verification | None


def _nobody(_done: int, _total: int) -> None:
    return


def verify(
    store: Store,
    scope: Scope,
    mode: Mode,
    pilot_tokens: int,
    progress: Callable[[int, int], None] = _nobody,
    workers: int = 1,
) -> VerifyReport:
    """Verify the data in `store` and write the report; `examine` tells all that it found.

    Arguments and errors as of `examine`.
    """
    return examine(store, scope, mode, pilot_tokens, progress, workers).report


def examine(
    store: Store,
    scope: Scope,
    mode: Mode,
    pilot_tokens: int,
    progress: Callable[[int, int], None] = _nobody,
    workers: int = 1,
) -> Verification:
    """Verify the data in `store` and write the report.

    Args:
        store: the data store.
        scope: `pilot`: the first parts of shard 0; `all`: everything.
        mode: `ledger` or `full`.
        pilot_tokens: tokens of the pilot.
        progress: called with the number of records checked and of all records.
        workers: threads; each holds one piece of a tar (16 MiB, or one block where that is larger).

    Raises:
        ConfigError: nothing has been collected here.
        DamagedError: the identity is damaged, so that nothing can be checked against it.

    """
    run = _Run(Context.of(store), scope, mode, pilot_tokens, workers)
    checked = run.check(run.keys, range(run.shards), progress)
    return run.finish(checked, _findings_of(checked))


def verify_share(
    store: Store,
    scope: Scope,
    mode: Mode,
    pilot_tokens: int,
    index: int,
    of: int,
    progress: Callable[[int, int], None] = _nobody,
    workers: int = 1,
) -> ShareResult:
    """Verify the share of worker `index` of `of`, and make the report if all other shares are there.

    Arguments and errors as of `examine`.
    """
    own = keys.verify_share(scope, index, of)
    store.delete(own)
    run = _Run(Context.of(store), scope, mode, pilot_tokens, workers)
    checked = run.check(run.keys[index::of], share_of(run.shards, index, of), progress)
    share = Share(
        scope=scope,
        mode=mode,
        identity=run.context.identity.sha256,
        index=index,
        of=of,
        records_sha256=contents_hash(checked),
        findings=tuple(_sorted(run.own_findings(_findings_of(checked)))),
    )
    store.put(own, share.to_json())
    return ShareResult(len(checked), share.findings, run.finish_shares(share))


class _Run:
    """One verification over the records of a scope, or a share of them."""

    def __init__(self, context: Context, scope: Scope, mode: Mode, pilot_tokens: int, workers: int) -> None:
        self.context = context
        self.keys = scope_records(context.store, context.plan, scope, pilot_tokens)
        self.shards = 1 if scope == "pilot" else context.plan.num_shards
        self._scope: Scope = scope
        self._mode: Mode = mode
        self._planned = planned_records(context.plan, scope, pilot_tokens)
        self._workers = workers
        self._token_findings: set[Finding] = set()

    def check(
        self, record_keys: Sequence[str], shards: Iterable[int], progress: Callable[[int, int], None]
    ) -> list[Checked]:
        """Check records, and the token files of `shards`."""
        for shard in shards:
            self._token_findings.update(self.context.tokens(shard).findings)
        checked = []
        check = partial(check_part, self.context, mode=self._mode)
        for number, result in enumerate(in_order(check, record_keys, self._workers)):
            checked.append(result)
            progress(number + 1, len(record_keys))
        return checked

    def own_findings(self, findings: Iterable[Finding]) -> set[Finding]:
        """`findings` and what is wrong with the tokens."""
        return {*findings, *self._token_findings, *self.context.findings}

    def finish_shares(self, mine: Share) -> Verification | None:
        """Make the report if all shares are there."""
        store = self.context.store
        if not all_there(store, mine):
            return None
        checked = list(in_order(partial(read_part, self.context), self.keys, self._workers))
        shares = read_shares(store, mine, checked)
        if shares is None:
            return None
        verification = self.finish(checked, {finding for share in shares for finding in share.findings})
        for share in shares:
            store.delete(share.key)
        return verification

    def finish(self, checked: Sequence[Checked], findings: Iterable[Finding]) -> Verification:
        """Write the report of `findings` over all records of the scope, and what else the scope calls for."""
        found = self.own_findings(findings)
        have = {part.key for part in checked}
        for key in self._planned:
            if key not in have:
                found.add(_missing(key))
        bad = {(finding.shard, finding.part) for finding in found}
        good = [part.record for part in checked if part.record is not None and keys.parse_record(part.key) not in bad]
        derived = None
        if self._scope == "all":
            derived = Derived(self.context, good, whole=not found, workers=self._workers)
            found.update(derived.check())
        identity = self.context.identity.sha256
        report = make_report(identity, self._scope, self._mode, self.keys, good, found, self._harmless(checked))
        if derived is not None and report.passed:
            derived.write()
        self.context.store.put(keys.verify_report(self._scope), report.to_json())
        return Verification(report, tuple(_sorted(found)))

    def _harmless(self, checked: Sequence[Checked]) -> tuple[list[str], list[str]]:
        """Orphans and open uploads. No orphan while a record cannot be read, for it may name them."""
        if self._scope != "all":
            return [], []
        records = [part.record for part in checked if part.record is not None]
        loose = orphans(self.context.objects, records) if len(records) == len(checked) else []
        try:
            uploads = [upload.key for upload in self.context.store.open_uploads("activations/")]
        except (AccessError, StoreError) as error:  # no right to, or a server that cannot: no reason to fail
            log.warning("Open uploads are not listed: %s", error)
            uploads = []
        return loose, uploads


def make_report(
    identity: str,
    scope: Scope,
    mode: Mode,
    record_keys: Sequence[str],
    good: Sequence[Record],
    findings: Iterable[Finding],
    harmless: tuple[Sequence[str], Sequence[str]],
) -> VerifyReport:
    """Make the report: the same for the same findings, in whatever order and by however many workers they were made."""
    layers = [layer for record in good for layer in record.layers]
    flagged: dict[str, tuple[int, int, int]] = {}
    for layer in layers:
        before = flagged.get(str(layer.layer), (0, 0, 0))
        flagged[str(layer.layer)] = tuple(a + b for a, b in zip(before, layer.flags, strict=True))  # type: ignore[assignment]
    found = _sorted(findings)
    orphaned, uploads = harmless
    return VerifyReport(
        scope=scope,
        mode=mode,
        identity=identity,
        records=len(record_keys),
        records_sha256=record_list_hash(record_keys),
        tokens=sum(record.rows for record in good),
        tars=len(layers),
        bytes=sum(layer.bytes for layer in layers),
        tars_read=len(layers) if mode == "full" else 0,
        flagged=flagged,
        storage_fvu=storage_fvu(good) or None,
        orphans=tuple(orphaned[:LISTED]),
        open_uploads=tuple(uploads[:LISTED]),
        findings=tuple(found[:LISTED]),
        finding_count=len(found),
    )


def _findings_of(checked: Iterable[Checked]) -> set[Finding]:
    return {finding for part in checked for finding in part.findings}


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(set(findings), key=Finding.order)


def _missing(key: str) -> Finding:
    shard, part = keys.parse_record(key) or (-1, -1)
    detail = "the part is not collected"
    return Finding(kind=Damage.MISSING_RECORD, key=key, detail=detail, shard=shard, part=part)
