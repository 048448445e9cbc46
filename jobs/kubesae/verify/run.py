"""Verify: is every part of the plan there, and is it what its record says?

    kubesae verify experiment.yaml --scope all --mode full

Mode `ledger` parses every record and compares the size of every object by listing; `full` reads every byte as well.
The report is what gates open on. Scope `all`, once it passes, also writes the index and the merged moments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.errors import DamagedError
from kubesae.ledger import (
    Finding,
    Plan,
    VerifyReport,
    keys,
    parse_record,
    planned_records,
    record_list_hash,
    require_identity,
    scope_records,
)
from kubesae.shards import blocks_of, write_index
from kubesae.verify.checks import Context, add_moments, check_bytes, check_record

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from kubesae.corpus import ShardTokens
    from kubesae.ledger import Record, Scope
    from kubesae.store import Store

LISTED = 100


def verify(
    store: Store,
    scope: Scope,
    mode: Literal["ledger", "full"],
    pilot_tokens: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> VerifyReport:
    """Verify the data in `store` and write the report.

    Args:
        store: the data store.
        scope: `pilot`: the first parts of shard 0; `all`: everything.
        mode: `ledger` or `full`.
        pilot_tokens: tokens of the pilot.
        progress: called with the number of records checked and of all records.

    Raises:
        ConfigError: nothing has been collected here.
        DamagedError: identity or tokens are damaged, so that nothing can be checked against them.

    """
    identity = require_identity(store)
    manifest = require_manifest(store)
    if manifest.sha256 != identity.tokens_manifest:
        raise DamagedError(
            f"{store.url}/{keys.TOKENS_MANIFEST} is not the manifest that the data was collected from (SHA-256 "
            f"{manifest.sha256[:12]}, identity names {identity.tokens_manifest[:12]}). Restore it."
        )
    objects = store.list("activations/")
    context = Context(store, identity, Plan.of(identity), manifest, objects)
    return _Verification(context, scope, mode, pilot_tokens, progress).run()


class _Verification:
    """One run over the records of a scope."""

    def __init__(
        self,
        context: Context,
        scope: Scope,
        mode: Literal["ledger", "full"],
        pilot_tokens: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self._context = context
        self._scope = scope
        self._mode = mode
        self._progress = progress
        self._records = scope_records(context.store, context.plan, scope, pilot_tokens)
        self._pilot_tokens = pilot_tokens
        self._findings: list[Finding] = []
        self._good: list[Record] = []
        self._named: set[str] = set()
        self._unreadable = False
        self._tokens: tuple[int, ShardTokens] | None = None

    def run(self) -> VerifyReport:
        """Check, write the report, and what else the scope calls for."""
        self._find_missing()
        for number, key in enumerate(self._records):
            self._check(key)
            self._progress(number + 1, len(self._records))
        report = self._report()
        context = self._context
        if self._scope == "all" and report.passed:
            write_index(context.store, context.identity, (b for r in self._good for b in blocks_of(r, context.plan)))
            for layer, moments in context.moments.items():
                context.store.put(keys.merged_moments(layer), moments.to_bytes())
        context.store.put(keys.verify_report(self._scope), report.to_json())
        return report

    def _find_missing(self) -> None:
        have = set(self._records)
        for key in planned_records(self._context.plan, self._scope, self._pilot_tokens):
            if key not in have:
                self._findings.append(Finding(kind="missing record", key=key, detail="the part is not collected"))

    def _check(self, key: str) -> None:
        context = self._context
        where = context.url(key)
        try:
            record = parse_record(context.store.read(key), where)
        except DamagedError as error:
            self._findings.append(Finding(kind="unreadable record", key=key, detail=str(error)))
            self._unreadable = True
            return
        self._named.update(key for layer in record.layers for key in (layer.key, layer.moments))
        shard = (keys.parse_record(key) or (0, 0))[0]
        if shard >= context.plan.num_shards:
            self._findings.append(Finding(kind="foreign record", key=key, detail="the plan has no such shard"))
            return
        tokens = self._shard_tokens(shard)
        found = list(check_record(context, record, key, tokens))
        if not found and self._mode == "full":
            found += check_bytes(context, record, tokens)
        if not found:
            found += [finding for layer in record.layers for finding in add_moments(context, layer)]
        if not found:
            self._good.append(record)
        self._findings += found

    def _shard_tokens(self, shard: int) -> ShardTokens:
        """Tokens of a shard; records come by shard, so one is held at a time."""
        if self._tokens is None or self._tokens[0] != shard:
            self._tokens = (shard, read_shard_tokens(self._context.store, self._context.manifest, shard))
        return self._tokens[1]

    def _report(self) -> VerifyReport:
        layers = [layer for record in self._good for layer in record.layers]
        flagged: dict[str, tuple[int, int, int]] = {}
        for layer in layers:
            before = flagged.get(str(layer.layer), (0, 0, 0))
            flagged[str(layer.layer)] = tuple(a + b for a, b in zip(before, layer.flags, strict=True))  # type: ignore[assignment]
        return VerifyReport(
            scope=self._scope,
            mode=self._mode,
            identity=self._context.identity.sha256,
            records=len(self._records),
            records_sha256=record_list_hash(self._records),
            tokens=sum(record.rows for record in self._good),
            tars=len(layers),
            bytes=sum(layer.bytes for layer in layers),
            tars_read=len(layers) if self._mode == "full" else 0,
            flagged=flagged,
            orphans=tuple(self._orphans()[:LISTED]) if self._scope == "all" else (),
            findings=tuple(self._findings[:LISTED]),
            finding_count=len(self._findings),
        )

    def _orphans(self) -> list[str]:
        """Tars and moments that no record names; none while a record cannot be read, for it may name them."""
        if self._unreadable:
            return []
        merged = {keys.merged_moments(layer) for layer in self._context.identity.layers}
        content = (key for key in self._context.objects if key.endswith((".tar", ".npz")))
        return [key for key in content if key not in self._named and key not in merged]
