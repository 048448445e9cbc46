"""Look at a store: what is prepared, collected, verified, trained and interpreted there, wherever the work goes on.

    kubesae monitor --data s3://bucket/prefix --watch

Everything comes from listings (three, however many parts there are) and a handful of small objects: there is no state,
and nothing is written. Times are those of the objects, by the store's clock.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, Field

from kubesae.corpus import read_manifest
from kubesae.experiment import Section
from kubesae.ledger import Collection, Commits, Plan, keys, read_identity, shard_states
from kubesae.monitor.phases import ReportState, SaeState, report_states, sae_states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import Experiment
    from kubesae.store import ObjectInfo, Store


class Prepared(Section):
    """The prepared tokens."""

    tokens: int = Field(description="tokens")
    shards: int = Field(description="shards")
    corpora: tuple[str, ...] = Field(description="names of the corpora")


class Snapshot(Section):
    """How far everything is: what `kubesae monitor --json` prints."""

    format: Literal[1] = Field(1, description="version of this object")
    time: AwareDatetime = Field(description="when it was looked at, by the clock of this machine")
    data: str = Field(description="the data prefix")
    prepared: Prepared | None = Field(description="the prepared tokens; null: not yet")
    collection: Collection = Field(description="the collection")
    reports: tuple[ReportState, ...] = Field(description="verifications, of the scopes that have a report")
    saes: tuple[SaeState, ...] = Field(description="the SAEs that have begun")


def observe(store: Store, output: Store, experiment: Experiment, now: datetime | None = None) -> Snapshot:
    """Look once.

    Args:
        store: the data store.
        output: the store of SAEs and interpretation.
        experiment: gives the plan as long as nothing has been collected, the size of a chunk, and the pilot's size.
        now: the time, for ages (default: that of this machine).

    Raises:
        DamagedError: identity, manifest or a report is damaged.

    """
    time = now or datetime.now(UTC)
    identity, manifest = read_identity(store), read_manifest(store)
    plan = Plan.of(identity or experiment)
    objects = store.list("activations/")
    return Snapshot(
        time=time,
        data=store.url,
        prepared=_prepared(manifest),
        collection=_collection(objects, plan, range(plan.num_shards), experiment.chunk, time),
        reports=tuple(report_states(store, plan, identity, objects, experiment.pilot.tokens)),
        saes=tuple(sae_states(output)),
    )


def observe_collection(
    store: Store, experiment: Experiment, shards: Sequence[int], now: datetime | None = None
) -> Collection:
    """Look once at `shards` alone. Arguments and errors as those of `observe`."""
    time = now or datetime.now(UTC)
    return _collection(store.list("activations/"), Plan.of(experiment), shards, experiment.chunk, time)


def _collection(
    objects: Mapping[str, ObjectInfo], plan: Plan, shards: Sequence[int], chunk: int, now: datetime
) -> Collection:
    commits: dict[int, Commits] = {}
    sizes: dict[int, int] = {}
    for key, info in objects.items():
        if (place := keys.parse_record(key)) is not None:
            shard, part = place
            if shard < plan.num_shards and part < plan.parts(shard):
                commits.setdefault(shard, Commits()).add(part, info.modified)
        elif (place := keys.parse_content(key)) is not None:
            sizes[place[0]] = sizes.get(place[0], 0) + info.size
    return Collection.of(shard_states(plan, shards, commits, sizes, chunk, now))


def _prepared(manifest: TokensManifest | None) -> Prepared | None:
    if manifest is None:
        return None
    return Prepared(
        tokens=sum(shard.tokens for shard in manifest.shards),
        shards=len(manifest.shards),
        corpora=tuple(corpus.name for corpus in manifest.corpora),
    )
