"""How far and how fast each shard is, from nothing but when its parts were committed. Pure.

A shard's *interval* is the median time between its recent commits, its *rate* the rows per second over them, without
pauses (ten intervals or more: a worker was stopped and started again). Of shards that have begun and are not complete,

    silent   has not committed for five intervals, and a minute at least
    slow     has less than half the median rate, where three shards or more are running
"""

from __future__ import annotations

import itertools
from bisect import insort
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, Field

from kubesae.experiment import Section
from kubesae.ledger.plan import chunks_done

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from kubesae.ledger.plan import Plan

RECENT = 20
PAUSE = 10.0
SILENT = 5.0
SILENT_SECONDS = 60.0
SLOW = 0.5
SLOW_AMONG = 3


@dataclass(slots=True)
class Commits:
    """What is known of one shard's records: kept small, however many there are, and told of each one once or more.

    `done` parts are committed without a gap; `beyond` are those behind one; `recent` the last ones with their times.
    """

    done: int = 0
    beyond: set[int] = field(default_factory=set)
    recent: list[tuple[datetime, int]] = field(default_factory=list)

    def add(self, part: int, time: datetime) -> None:
        """Take in a record."""
        if part < self.done or part in self.beyond:
            return
        insort(self.recent, (time, part))
        del self.recent[: -RECENT - 1]
        self.beyond.add(part)
        while self.done in self.beyond:
            self.beyond.remove(self.done)
            self.done += 1

    @property
    def last(self) -> datetime | None:
        """When the last one was committed."""
        return self.recent[-1][0] if self.recent else None


class ShardState(Section):
    """One shard."""

    shard: int = Field(description="shard")
    state: Literal["waiting", "running", "slow", "silent", "complete"] = Field(
        description="waiting: nothing is committed; slow and silent: stragglers"
    )
    tokens: int = Field(description="tokens committed without a gap")
    total: int = Field(description="tokens of the shard")
    chunk: int = Field(description="complete chunks")
    parts: int = Field(description="parts committed, behind a gap too")
    total_parts: int = Field(description="parts of the shard")
    bytes: int = Field(description="bytes of its tars and moments in the store")
    last_commit: AwareDatetime | None = Field(description="time of the last commit, by the store's clock")
    age: float | None = Field(description="seconds since then")
    interval: float | None = Field(description="median seconds between recent commits")
    rate: float | None = Field(description="tokens a second over recent commits")
    eta: float | None = Field(description="seconds left at that rate, while it is running")

    @property
    def moving(self) -> bool:
        """Whether it is being collected now, as far as can be told."""
        return self.state in {"running", "slow"}


class Collection(Section):
    """All shards, or those of one worker."""

    shards: tuple[ShardState, ...] = Field(description="the shards")
    tokens: int = Field(description="tokens committed without a gap")
    total: int = Field(description="tokens to collect")
    bytes: int = Field(description="bytes of tars and moments in the store")
    rate: float | None = Field(description="tokens a second of the shards that are running")
    eta: float | None = Field(description="seconds left at that rate, and at least those of the slowest running shard")

    @classmethod
    def of(cls, shards: Sequence[ShardState]) -> Collection:
        """Sum up shards."""
        moving = [state for state in shards if state.moving]
        rate = sum(state.rate or 0.0 for state in moving)
        left = sum(state.total - state.tokens for state in shards)
        return cls(
            shards=tuple(shards),
            tokens=sum(state.tokens for state in shards),
            total=sum(state.total for state in shards),
            bytes=sum(state.bytes for state in shards),
            rate=rate or None,
            eta=max([left / rate, *(state.eta or 0.0 for state in moving)]) if rate else None,
        )

    @property
    def complete(self) -> bool:
        """Whether every shard is."""
        return all(state.state == "complete" for state in self.shards)


def shard_states(
    plan: Plan,
    shards: Sequence[int],
    commits: Mapping[int, Commits],
    sizes: Mapping[int, int],
    chunk: int,
    now: datetime,
) -> list[ShardState]:
    """Return the state of each of `shards`.

    Args:
        plan: the plan.
        shards: which.
        commits: of each shard that has begun.
        sizes: bytes of each shard.
        chunk: tokens of a chunk.
        now: the time.

    """
    paces = {shard: _pace(plan, shard, commits.get(shard, Commits())) for shard in shards}
    intervals = [interval for interval, _ in paces.values() if interval is not None]
    usual = median(intervals) if intervals else None
    states = [
        _state(plan, shard, commits.get(shard, Commits()), paces[shard], usual, sizes.get(shard, 0), chunk, now)
        for shard in shards
    ]
    rates = [state.rate for state in states if state.state == "running" and state.rate]
    limit = SLOW * median(rates) if len(rates) >= SLOW_AMONG else 0.0
    return [
        state.model_copy(update={"state": "slow"})
        if state.state == "running" and (state.rate or limit) < limit
        else state
        for state in states
    ]


def _pace(plan: Plan, shard: int, commits: Commits) -> tuple[float | None, float | None]:
    """Return the median interval and the rate of recent commits; None where there are too few to tell."""
    steps = [
        ((time - before).total_seconds(), plan.part(shard, part).rows)
        for (before, _), (time, part) in itertools.pairwise(commits.recent)
    ]
    if not steps:
        return None, None
    interval = median(seconds for seconds, _ in steps)
    kept = [step for step in steps if step[0] <= PAUSE * interval] if interval else steps
    seconds = sum(step[0] for step in kept)
    return interval, sum(step[1] for step in kept) / seconds if seconds else None


def _state(
    plan: Plan,
    shard: int,
    commits: Commits,
    pace: tuple[float | None, float | None],
    usual: float | None,
    size: int,
    chunk: int,
    now: datetime,
) -> ShardState:
    interval, rate = pace
    tokens, total = plan.rows_before(shard, commits.done), plan.quota(shard)
    last = commits.last
    age = None if last is None else max(0.0, (now - last).total_seconds())
    own = usual if interval is None else interval
    state: Literal["waiting", "running", "silent", "complete"] = "running"
    if tokens == total:
        state = "complete"
    elif age is None:
        state = "waiting"
    elif own is not None and age > max(SILENT_SECONDS, SILENT * own):
        state = "silent"
    return ShardState(
        shard=shard,
        state=state,
        tokens=tokens,
        total=total,
        chunk=chunks_done(tokens, total, chunk),
        parts=commits.done + len(commits.beyond),
        total_parts=plan.parts(shard),
        bytes=size,
        last_commit=last,
        age=age,
        interval=interval,
        rate=rate,
        eta=(total - tokens) / rate if state == "running" and rate else None,
    )
