"""Repair: the only program that replaces. What verify found is made again, to the bytes that there were.

    kubesae repair experiment.yaml

A part is collected again in memory, in the numerics class that it was collected in, and compared with the digests that
a sound record names, or with the names of surviving tars. Then its tars are uploaded, and only after that is a record
that was wrong copied to quarantine, deleted, and written anew, create-only: a kill at any moment leaves a store that
another repair finishes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.collect.machine import load_engine, numerics, set_threads
from kubesae.collect.suspects import Ledger, Suspect, find_suspects, set_aside
from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.errors import DamagedError, KubesaeError, MissingError, UserError
from kubesae.experiment import DataIdentity, sha256_hex
from kubesae.ledger import Damage, Plan, keys, require_identity
from kubesae.shards import Moments, blocks_of, read_block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.collect.capture import Engine
    from kubesae.collect.publish import FinishedPart
    from kubesae.corpus import ShardTokens
    from kubesae.experiment import Experiment
    from kubesae.ledger import Finding, Numerics
    from kubesae.store import Store

_TOKENS = frozenset({Damage.MISSING_TOKENS, Damage.DAMAGED_TOKENS})
MOST_CLASSES = 4
"""in how many classes a part is collected before it is taken as it came first"""


@dataclass(frozen=True)
class Work:
    """What is to be done, by kind."""

    tokens: tuple[str, ...]
    """keys of token files"""
    moments: tuple[Suspect, ...]
    """parts whose tars give their moments again"""
    foreign: tuple[Suspect, ...]
    """records of no part"""
    parts: tuple[Suspect, ...]
    """parts to collect again"""
    derived: tuple[str, ...]
    """keys of what verify writes: they are deleted, and it writes them anew"""
    uncollected: tuple[Suspect, ...]
    """parts that were never collected: nothing to repair"""
    ledger: Ledger
    """the records around them"""

    @property
    def count(self) -> int:
        """How many things there are to do."""
        return sum(map(len, (self.tokens, self.moments, self.foreign, self.parts, self.derived)))


def plan_work(store: Store, findings: Sequence[Finding]) -> Work:
    """Sort findings into what is to be done about them. Reads the records of the parts concerned."""
    suspects = find_suspects(store, findings)
    ledger = Ledger(store, Plan.of(require_identity(store)), suspects)
    foreign = [suspect for suspect in suspects if suspect.foreign]
    moments = [suspect for suspect in suspects if suspect.only_moments]
    rest = [suspect for suspect in suspects if not suspect.foreign and not suspect.only_moments]
    other = [finding for finding in findings if finding.part is None]
    return Work(
        tokens=tuple(finding.key for finding in other if finding.kind in _TOKENS),
        moments=tuple(moments),
        foreign=tuple(foreign),
        parts=tuple(suspect for suspect in rest if ledger.begun(suspect)),
        derived=tuple(finding.key for finding in other if finding.kind not in _TOKENS),
        uncollected=tuple(suspect for suspect in rest if not ledger.begun(suspect)),
        ledger=ledger,
    )


def repair(
    experiment: Experiment,
    store: Store,
    work: Work,
    restore_tokens: Callable[[Sequence[str]], None],
    *,
    new_class: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Do `work`. Nothing is touched before it is known that every part can be collected in its class.

    Args:
        experiment: the experiment.
        store: its data store.
        work: from `plan_work`.
        restore_tokens: makes these token files again.
        new_class: collect a part in this machine's class where its own cannot be had.
        say: called with a line for each thing that is done.

    Raises:
        IdentityError: the data belongs to another experiment.
        UserError: this machine cannot give the class of a part.
        DamagedError: a part collected again is not what its record names.

    """
    identity = require_identity(store)
    asked = DataIdentity.of(experiment, identity.tokens_manifest, identity.model_revision, identity.d_model)
    asked.check_same(identity, store.url)
    moments = [(suspect, _moments_again(store, identity, suspect)) for suspect in work.moments]
    parts = [*work.parts, *(suspect for suspect, made in moments if made is None)]
    mend = _ready(experiment, store, identity, work.ledger, parts, new_class=new_class) if parts else None
    if work.tokens:
        restore_tokens(work.tokens)
        for key in work.tokens:
            say(f"{key}: made again")
    for suspect, made in moments:
        if made is not None:
            for key, data in made.items():
                store.put(key, data)
            say(f"{suspect.name}: taken again from its tars")
    for suspect in work.foreign:
        say(f"{suspect.name}: set aside as {set_aside(store, suspect)}")
    if mend is not None:
        for suspect in parts:
            say(f"{suspect.name}: {mend(suspect)}")
    for key in work.derived:
        store.delete(key)
        say(f"{key}: deleted, verify writes it anew")


def _moments_again(store: Store, identity: DataIdentity, suspect: Suspect) -> dict[str, bytes] | None:
    """Take a part's moments from its tars; None where that does not give the digests of the record."""
    if suspect.record is None:
        return None
    moments = {layer.layer: Moments.zero(identity.d_model) for layer in suspect.record.layers}
    try:
        for ref in blocks_of(suspect.record, Plan.of(identity)):
            block = read_block(store, ref)
            moments[ref.layer] += Moments.of(block.stored, block.flags)[0]
    except (DamagedError, MissingError):
        return None
    made = {layer.moments: moments[layer.layer].to_bytes() for layer in suspect.record.layers}
    right = all(sha256_hex(made[layer.moments]) == layer.moments_sha256 for layer in suspect.record.layers)
    return made if right else None


def _ready(
    experiment: Experiment,
    store: Store,
    identity: DataIdentity,
    ledger: Ledger,
    parts: Sequence[Suspect],
    *,
    new_class: bool,
) -> Callable[[Suspect], str]:
    """Load the model, make sure that it gives every part's class, and return what mends a part."""
    collector = _Collector(experiment, store, identity, ledger)
    for suspect in parts:
        collector.choose_classes(suspect, new_class=new_class)
    return collector.mend


class _Collector:
    """The model on this machine, and the classes that the parts need of it."""

    def __init__(self, experiment: Experiment, store: Store, identity: DataIdentity, ledger: Ledger) -> None:
        """Load the model. Raises IdentityError when it is not the one that the data was collected with."""
        from kubesae.model import resolve_model  # noqa: PLC0415 - imports torch

        source = resolve_model(experiment)
        DataIdentity.of(experiment, identity.tokens_manifest, source.revision, source.d_model).check_same(
            identity, store.url
        )
        self._store = store
        self._identity = identity
        self._plan = Plan.of(identity)
        self._ledger = ledger
        self._engine: Engine = load_engine(experiment, source)
        self._mine = numerics(self._engine, experiment.collect.forward_batch, set_threads(experiment.collect.threads))
        self._classes: dict[tuple[int, int], list[Numerics]] = {}
        self._new: set[tuple[int, int]] = set()
        self._unless_proven: dict[tuple[int, int], UserError] = {}
        self._tokens: tuple[int, ShardTokens] | None = None  # parts come by shard

    def choose_classes(self, suspect: Suspect, *, new_class: bool) -> None:
        """Decide in which classes a part is collected.

        Where this machine cannot give the likeliest class, a less likely one will do only if it is proven right, by
        the name of a surviving tar.

        Raises:
            UserError: it can give none that will do.

        """
        wanted = self._ledger.classes(suspect)
        able = [entry for entry in wanted if not self._lacks(entry)]
        likeliest = bool(wanted) and able[:1] == wanted[:1]
        if not likeliest and not new_class:
            refusal = UserError(self._why_not(suspect, wanted))
            if not able or not self._ledger.tars(suspect):
                raise refusal
            self._unless_proven[suspect.place] = refusal
        if not able:
            self._new.add(suspect.place)
        self._classes[suspect.place] = able[:MOST_CLASSES] or [self._mine]

    def _lacks(self, wanted: Numerics) -> list[str]:
        """Say in what this machine differs from a class; threads and forward batch are set as it had them."""
        here = {"engine": self._mine.engine, "device": self._mine.device} | self._mine.versions
        there = {"engine": wanted.engine, "device": wanted.device} | wanted.versions
        return [
            f"  {name}: {there.get(name)!r} there, {here.get(name)!r} here"
            for name in sorted(here | there)
            if here.get(name) != there.get(name)
        ]

    def _why_not(self, suspect: Suspect, wanted: Sequence[Numerics]) -> str:
        do = (
            "Repair on such a machine, or give --new-class to collect it in this machine's class: valid activations, "
            "but not bit for bit those that were there."
        )
        if not wanted:
            return (
                f"{suspect.name}: no sound record says what the part was collected with, so its bytes cannot be made "
                f"again for certain; nothing of it was touched. {do}"
            )
        lines = "\n".join(self._lacks(wanted[0]))
        return (
            f"{suspect.name}: this machine cannot give the numerics class that the part was collected in; nothing of "
            f"it was touched. They differ in\n{lines}\n{do}"
        )

    def mend(self, suspect: Suspect) -> str:
        """Collect the part again and put it in place; say how it is known to be right.

        Raises:
            DamagedError: it is not what its sound record names.
            KubesaeError: memory ran out.

        """
        made, known = self._again(suspect)
        made.upload(self._store)
        if suspect.data == made.record.to_json():
            return f"collected again, {known}"
        kept = f"; the record that was there is {set_aside(self._store, suspect)}" if suspect.data is not None else ""
        from kubesae.collect.publish import commit  # noqa: PLC0415 - imports torch

        commit(self._store, made.record)
        return f"collected again, {known}{kept}"

    def _again(self, suspect: Suspect) -> tuple[FinishedPart, str]:
        """Collect the part in each of its classes until the result is what a record or surviving tars name.

        Raises as `mend`, and UserError when it is not and this machine cannot give the likeliest class.
        """
        classes = self._classes[suspect.place]
        first = self._collect(suspect, classes[0])
        if suspect.place in self._new:
            return first, "in this machine's class"
        if suspect.sound and suspect.record is not None:
            if _tars(first) != {layer.key for layer in suspect.record.layers}:
                raise DamagedError(
                    f"{suspect.name}: collected again in its class ({classes[0].model_dump()}), the part gives other "
                    "bytes than its record names; nothing of it was touched. Repair on the machine that collected it, "
                    f"or delete {keys.record(suspect.shard, suspect.part)} and repair again: it is then made anew."
                )
            return first, "to the digest that its record names"
        survivors = self._ledger.tars(suspect)
        for made in itertools.chain([first], (self._collect(suspect, entry) for entry in classes[1:])):
            if _tars(made) & survivors:
                return made, "to the bytes that a surviving tar is named by"
        if suspect.place in self._unless_proven:
            raise self._unless_proven[suspect.place]
        return first, "as its neighbours were; no surviving tar says what it was"

    def _collect(self, suspect: Suspect, entry: Numerics) -> FinishedPart:
        from kubesae.collect.capture import Capturer  # noqa: PLC0415 - imports torch
        from kubesae.collect.publish import finish_part  # noqa: PLC0415

        manifest = require_manifest(self._store)
        if self._tokens is None or self._tokens[0] != suspect.shard:
            self._tokens = suspect.shard, read_shard_tokens(self._store, manifest, suspect.shard)
        tokens = self._tokens[1]
        threads = set_threads(entry.threads)
        capturer = Capturer(self._engine, self._identity, self._plan, manifest, tokens, entry.forward_batch)
        (captured,) = capturer.capture([self._plan.part(suspect.shard, suspect.part)])
        if captured.forward_batch != entry.forward_batch and suspect.place not in self._new:
            raise KubesaeError(
                f"{suspect.name}: memory ran out at its forward batch of {entry.forward_batch} contexts, which its "
                "bytes depend on. Free memory, or repair on a larger machine."
            )
        return finish_part(captured, self._identity, numerics(self._engine, captured.forward_batch, threads))


def _tars(made: FinishedPart) -> set[str]:
    return {layer.record.key for layer in made.layers}
