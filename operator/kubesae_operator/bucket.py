"""What the store shows of one experiment, by as few listings as can be.

Everything that is complete stays so and is not asked for again, up to a whole look now and then. Records of parts come
in the order of their keys, a thousand a listing: a walk skips what is known, so that a look takes about one listing a
thousand new or unfinished parts, and never more than one a shard and one a thousand parts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from kubesae.errors import IdentityError
from kubesae.experiment import DataIdentity
from kubesae.ledger import (
    Collection,
    Commits,
    Phase,
    Plan,
    TrainPoint,
    checkpoint_steps,
    is_interpreted,
    is_prepared,
    is_trained,
    keys,
    last_point,
    opens,
    planned_records,
    read_best,
    read_identity,
    read_record,
    read_report,
    record_list_hash,
    sae_names,
    shard_states,
)
from kubesae.store.store import MAX_PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.experiment import Experiment
    from kubesae.ledger import Scope
    from kubesae.store import Store

WALKERS = 4
"""listings of one store at the same time"""

SHORTEST_STRETCH = 64
"""shards that one listing after the other is quick enough for"""


@dataclass(frozen=True, slots=True)
class SaeProgress:
    """One SAE: `step` is its newest checkpoint's, `point` the newest of its curve, or the best when it is trained."""

    name: str
    trained: bool = False
    interpreted: bool = False
    step: int | None = None
    point: TrainPoint | None = None


@dataclass(frozen=True, slots=True)
class StoreView:
    """What one look showed."""

    looked: datetime
    complete: frozenset[Phase] = frozenset()
    mismatch: str = ""
    collection: Collection | None = None
    next_parts: tuple[int, ...] = ()
    bytes: int = 0
    saes: tuple[SaeProgress, ...] = ()
    lists: int = 0


@dataclass
class Bucket:
    """The store of one experiment, and what is known of it.

    `data` holds tokens and activations, `output` SAEs and interpretation; `phases` are those that are of interest.
    """

    data: Store
    output: Store
    experiment: Experiment
    phases: Sequence[Phase]
    _identity: DataIdentity | None = None
    _complete: set[Phase] = field(default_factory=set)
    _commits: dict[int, Commits] = field(default_factory=dict)
    _row_bytes: float = 0.0
    _saes: dict[str, SaeProgress] = field(default_factory=dict)
    _lists: int = 0

    def look(self) -> StoreView:
        """Look at what may have changed.

        Raises:
            KubesaeError: the store cannot be read, or something in it is damaged.

        """
        self._lists = 0
        if "prepare" in self.phases and "prepare" not in self._complete:
            self._lists += 1
            self._note("prepare", is_prepared(self.data))
        identity = self._identity = self._identity or read_identity(self.data)
        if identity is None:
            return self._view(None, "")
        mismatch = self._mismatch(identity)
        if mismatch:
            return self._view(None, mismatch)
        plan = Plan.of(identity)
        if "collect" in self.phases or "pilot" in self.phases:
            self._look_at_collection(plan, identity)
        self._look_at_saes(identity)
        return self._view(plan, "")

    def forget(self) -> None:
        """Take nothing as known: the next look is a whole one."""
        self._identity = None
        self._complete.clear()
        self._commits.clear()
        self._saes.clear()

    def _note(self, phase: Phase, complete: bool) -> None:  # noqa: FBT001 - it is what is noted
        if complete:
            self._complete.add(phase)

    def _mismatch(self, stored: DataIdentity) -> str:
        asked = DataIdentity.of(self.experiment, stored.tokens_manifest, stored.model_revision, stored.d_model)
        try:
            asked.check_same(stored, self.data.url)
        except IdentityError as error:
            return str(error)
        return ""

    def _look_at_collection(self, plan: Plan, identity: DataIdentity) -> None:
        if "collect" not in self._complete:
            self._walk(plan)
            self._note("collect", all(self._done(shard) >= plan.parts(shard) for shard in range(plan.num_shards)))
        pilot = plan.pilot_parts(self.experiment.pilot.tokens)
        if self._wants("pilot") and self._done(0) >= pilot:
            self._note("pilot", self._verified("pilot", plan, identity))
        if self._wants("verify") and "collect" in self._complete:
            self._note("verify", self._verified("all", plan, identity))
        started = next((shard for shard in range(plan.num_shards) if self._done(shard)), None)
        if not self._row_bytes and started is not None:
            record = read_record(self.data, started, 0)
            self._row_bytes = sum(layer.bytes for layer in record.layers) / record.rows

    def _wants(self, phase: Phase) -> bool:
        return phase in self.phases and phase not in self._complete

    def _done(self, shard: int) -> int:
        commits = self._commits.get(shard)
        return commits.done if commits else 0

    def _verified(self, scope: Scope, plan: Plan, identity: DataIdentity) -> bool:
        """Whether a report opens the gate of a scope all of whose records are there."""
        report = read_report(self.data, scope)
        if report is None or not opens(report, identity.sha256, self.experiment.verify.mode):
            return False
        return report.records_sha256 == record_list_hash(planned_records(plan, scope, self.experiment.pilot.tokens))

    def _walk(self, plan: Plan) -> None:
        """Take in the records that are not known yet: of many shards several stretches of them at the same time.

        What is shown is as old as the first listing of a look, so a look has to be short.
        """
        unfinished = [shard for shard in range(plan.num_shards) if self._done(shard) < plan.parts(shard)]
        unfinished.sort(key=keys.record_folder)
        size = max(SHORTEST_STRETCH, -(-len(unfinished) // WALKERS))
        stretches = [unfinished[i : i + size] for i in range(0, len(unfinished), size)]
        with ThreadPoolExecutor(WALKERS, thread_name_prefix="walk") as pool:
            self._lists += sum(pool.map(partial(self._walk_along, plan), stretches))

    def _walk_along(self, plan: Plan, shards: Sequence[int]) -> int:
        """Take in the records of some shards, from behind the last known one of each; return the number of listings."""
        lists, position, ours = 0, "", set(shards)
        for shard in shards:
            done = self._done(shard)
            position = max(position, keys.record(shard, done - 1) if done else keys.record_folder(shard))
            while position < keys.record(shard, plan.parts(shard) - 1):
                page = self.data.list(keys.LEDGER, after=position, limit=MAX_PAGE)
                lists += 1
                for key, info in page.items():
                    place = keys.parse_record(key)
                    if place and place[0] in ours and place[1] < plan.parts(place[0]):
                        self._commits.setdefault(place[0], Commits()).add(place[1], info.modified)
                if len(page) < MAX_PAGE // 2:  # the last one; a full one may lack some that are no keys
                    return lists
                position = max(page)
        return lists

    def _look_at_saes(self, identity: DataIdentity) -> None:
        if not {"train", "interpret"} & set(self.phases):
            return
        for name in sae_names(self.experiment, identity):
            known = self._saes.get(name, SaeProgress(name))
            trained, interpreted, step, point = known.trained, known.interpreted, known.step, known.point
            if not trained and "train" in self.phases:
                steps = checkpoint_steps(self.output.list(f"{keys.sae_folder(name)}checkpoints/"))
                trained = is_trained(self.output, name)
                step = steps[-1] if steps else None
                point = read_best(self.output, name) if trained else last_point(self.output, name)
                self._lists += 3
            if not interpreted and "interpret" in self.phases:
                interpreted = is_interpreted(self.output, name)
                self._lists += 1
            self._saes[name] = SaeProgress(name, trained, interpreted, step, point)
        for phase, done in (("train", "trained"), ("interpret", "interpreted")):
            self._note(phase, all(getattr(sae, done) for sae in self._saes.values()))  # type: ignore[arg-type]

    def _view(self, plan: Plan | None, mismatch: str) -> StoreView:
        now = datetime.now(UTC)
        collection = None
        if plan is not None and "collect" in self.phases:
            states = shard_states(plan, range(plan.num_shards), self._commits, {}, self.experiment.chunk, now)
            collection = Collection.of(states)
        return StoreView(
            looked=now,
            complete=frozenset(phase for phase in self._complete if phase in self.phases),
            mismatch=mismatch,
            collection=collection,
            next_parts=tuple(self._done(shard) for shard in range(plan.num_shards)) if plan else (),
            bytes=round(self._row_bytes * collection.tokens) if collection else 0,
            saes=tuple(self._saes.values()),
            lists=self._lists,
        )
