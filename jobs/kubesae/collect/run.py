"""Collect: run the model over a worker's shards and stream activations to the store, part by part.

    kubesae collect experiment.yaml --index 0 --of 4

What is committed already is left alone, so a killed worker goes on where it was when it is started again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.collect.identity import check_experiment, claim
from kubesae.collect.machine import load_engine, numerics, set_threads
from kubesae.corpus import read_shard_tokens
from kubesae.ledger import Plan, committed_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.collect.capture import Engine
    from kubesae.collect.events import Events
    from kubesae.corpus import TokensManifest
    from kubesae.experiment import Experiment
    from kubesae.ledger import Record
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class Share:
    """What a worker is to collect: `shards`, of each all parts, or as many as reach `tokens` (the pilot)."""

    shards: tuple[int, ...]
    tokens: int | None = None

    def missing(self, store: Store, plan: Plan, shard: int) -> list[int]:
        """Parts of `shard` that are not committed yet."""
        done = committed_parts(store, shard)
        return [part for part in range(self.count(plan, shard)) if part not in done]

    def count(self, plan: Plan, shard: int) -> int:
        """Parts of `shard` in this share."""
        return plan.parts(shard) if self.tokens is None else plan.pilot_parts(self.tokens)

    def total(self, plan: Plan, shard: int) -> int:
        """Tokens of `shard` that progress counts up to."""
        return min(self.tokens or plan.quota(shard), plan.quota(shard))


def collect(experiment: Experiment, store: Store, share: Share, events: Events) -> None:
    """Collect `share`; without loading the model where nothing is missing.

    Args:
        experiment: the experiment.
        store: its data store.
        share: what to collect.
        events: told about progress.

    An exception that a signal handler raises stops the work at once: what is committed stays.

    Raises:
        UserError: nothing can be collected as things are (see `kubesae.errors`).

    """
    manifest, stored = check_experiment(experiment, store)
    if stored is not None:
        plan = Plan.of(stored)
        if not any(share.missing(store, plan, shard) for shard in share.shards):
            for shard in share.shards:
                events.nothing_to_do(shard)
            return
    worker = _Worker(experiment, store, manifest, share, events)
    for shard in share.shards:
        worker.collect_shard(shard)


class _Worker:
    """One process with one engine, loaded before its first part."""

    def __init__(
        self,
        experiment: Experiment,
        store: Store,
        manifest: TokensManifest,
        share: Share,
        events: Events,
    ) -> None:
        from kubesae.model import resolve_model  # noqa: PLC0415 - imports torch

        self._experiment = experiment
        self._store = store
        self._manifest = manifest
        self._share = share
        self._events = events
        self._threads = set_threads(experiment.collect.threads)
        self._source = resolve_model(experiment)
        self._identity = claim(experiment, store, manifest, self._source)
        self._plan = Plan.of(self._identity)
        self._engine: Engine | None = None
        self._forward_batch = experiment.collect.forward_batch

    def collect_shard(self, shard: int) -> None:
        """Collect the missing parts of one shard."""
        missing = self._share.missing(self._store, self._plan, shard)
        if not missing:
            self._events.nothing_to_do(shard)
            return
        engine = self._load(shard)
        self._events.start(shard, self._plan.rows_before(shard, missing[0]), self._share.total(self._plan, shard))
        self._run(shard, missing, engine)
        self._events.complete(shard)

    def _load(self, shard: int) -> Engine:
        if self._engine is None:
            self._events.loading(shard)
            self._engine = load_engine(self._experiment, self._source)
            self._events.loaded(shard)
        return self._engine

    def _run(self, shard: int, missing: Sequence[int], engine: Engine) -> None:
        from kubesae.collect.capture import Capturer  # noqa: PLC0415 - imports torch
        from kubesae.collect.publish import Publisher  # noqa: PLC0415

        tokens, together = read_shard_tokens(self._store, self._manifest, shard), self._parts_together()
        capturer = Capturer(
            engine,
            self._identity,
            self._plan,
            self._manifest,
            tokens,
            self._forward_batch,
        )
        publisher = Publisher(
            self._store,
            self._identity,
            lambda batch: numerics(engine, batch, self._threads),
            self._committed,
            max(self._experiment.collect.queue, together),
        )
        try:
            for first in range(0, len(missing), together):
                parts = [self._plan.part(shard, index) for index in missing[first : first + together]]
                for captured in capturer.capture(parts):
                    publisher.publish(captured)
                    self._events.waiting(publisher.waiting)
                self._forward_batch = capturer.forward_batch  # what fitted once is where the next shard begins
            publisher.finish()
        except BaseException:
            publisher.stop()
            raise
        self._events.waiting(0)

    def _parts_together(self) -> int:
        """Parts that pass the model at once: those of a block where layers are streamed, else one."""
        if self._experiment.collect.engine == "resident":
            return 1
        rows = self._plan.contexts_per_part * self._plan.context
        return max(1, self._experiment.collect.block_tokens // rows)

    def _committed(self, record: Record) -> None:
        self._events.stored(record)
        self._events.committed(record.shard, self._plan.rows_before(record.shard, record.part + 1))
