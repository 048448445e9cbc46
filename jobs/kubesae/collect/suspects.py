"""From what verify found to what has to be done about each part, and in which numerics class it was collected.

A record is *sound* when all that was found is that bytes it names are lost or changed: then it says what they were and
what computed them. Any other finding makes it a record not to be believed; the part is then collected as its nearest
neighbours were.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.errors import DamagedError, KubesaeError, MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import LOST_BYTES, Damage, committed_parts, keys, parse_record, read_record, record_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.ledger import Finding, Numerics, Plan, Record
    from kubesae.store import Store

_NO_PART = frozenset({Damage.FOREIGN_RECORD})
_MOMENTS = frozenset({Damage.MISSING_MOMENTS, Damage.CHANGED_MOMENTS})
NEAR = 32
"""how many neighbours are asked for their class: each is a request, and parts of a class lie together"""


@dataclass(frozen=True)
class Suspect:
    """A part with findings.

    Attributes:
        shard, part: which.
        findings: what was found.
        data: bytes of its record, None if there is none.
        record: what they say, None if they are no record.

    """

    shard: int
    part: int
    findings: tuple[Finding, ...]
    data: bytes | None
    record: Record | None

    @property
    def place(self) -> tuple[int, int]:
        """Shard and part."""
        return self.shard, self.part

    @property
    def sound(self) -> bool:
        """Whether the record names the right bytes, and only these are lost."""
        return self.record is not None and all(finding.kind in LOST_BYTES for finding in self.findings)

    @property
    def foreign(self) -> bool:
        """Whether the plan has no such part."""
        return any(finding.kind in _NO_PART for finding in self.findings)

    @property
    def only_moments(self) -> bool:
        """Whether only moments are lost, which the tars give again."""
        return self.record is not None and all(finding.kind in _MOMENTS for finding in self.findings)

    @property
    def name(self) -> str:
        """What it is called in lines for people."""
        kinds = ", ".join(sorted({str(finding.kind) for finding in self.findings}))
        return f"Shard {self.shard}, part {self.part}: {kinds}"


def find_suspects(store: Store, findings: Sequence[Finding]) -> list[Suspect]:
    """Return the parts that `findings` speak of, by shard and part, with their records as they lie in the store.

    Parts that were committed since verify found no record of them are left out.
    """
    by_part: dict[tuple[int, int], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.shard is not None and finding.part is not None:
            by_part[finding.shard, finding.part].append(finding)
    present, suspects = set(record_list(store)), []
    for (shard, part), found in sorted(by_part.items()):
        key = keys.record(shard, part)
        data, record = None, None
        if key in present:
            if all(finding.kind is Damage.MISSING_RECORD for finding in found):
                continue
            with suppress(MissingError, DamagedError):
                data = store.read(key)
                record = parse_record(data, store.url_of(key))
        suspects.append(Suspect(shard, part, tuple(found), data, record))
    return suspects


class Ledger:
    """The records around suspects: what is committed, what survives, and the classes that parts were collected in."""

    def __init__(self, store: Store, plan: Plan, suspects: Sequence[Suspect]) -> None:
        """List records and tars once."""
        self._store = store
        self._unsound = {suspect.place for suspect in suspects if not suspect.sound}
        self._committed = {shard: set(committed_parts(store, shard)) for shard in range(plan.num_shards)}
        tars: dict[tuple[int, int], set[str]] = defaultdict(set)
        for key in store.list("activations/layer-"):
            place = keys.parse_content(key)
            if place:
                tars[place].add(key)
        self._tars = dict(tars)

    def tars(self, suspect: Suspect) -> set[str]:
        """Keys of the part's tars that lie in the store, whoever names them."""
        return self._tars.get(suspect.place, set())

    def begun(self, suspect: Suspect) -> bool:
        """Whether the part was ever collected, as far as one can see: it or a later one is there, or tars of it."""
        later = (
            (suspect.shard, part) not in self._unsound
            for part in self._committed.get(suspect.shard, ())
            if part > suspect.part
        )
        return suspect.data is not None or bool(self.tars(suspect)) or any(later)

    def classes(self, suspect: Suspect) -> list[Numerics]:
        """Numerics classes that the part may have been collected in, the likeliest first.

        A sound record says it. Else the nearest sound record's comes first, then what the part's own record or its
        quarantined copies say, and then, where tars survive whose names can tell, what other sound records near it say.
        """
        if suspect.record is not None and suspect.sound:
            return [suspect.record.numerics]
        near = itertools.islice(self._neighbours(suspect), NEAR)
        first = next(near, None)
        own = [] if suspect.record is None else [suspect.record.numerics]
        found = [*([] if first is None else [first]), *own, *self._quarantined(suspect)]
        if self.tars(suspect):
            found += near
        return [numerics for i, numerics in enumerate(found) if numerics not in found[:i]]

    def _neighbours(self, suspect: Suspect) -> Iterator[Numerics]:
        """Numerics of sound records, of the nearest shard and part first."""
        for shard in sorted(self._committed, key=lambda shard: (abs(shard - suspect.shard), shard)):
            for part in sorted(self._committed[shard], key=lambda part: (abs(part - suspect.part), part)):
                if (shard, part) not in self._unsound:
                    yield read_record(self._store, shard, part).numerics

    def _quarantined(self, suspect: Suspect) -> Iterator[Numerics]:
        """Numerics of records of the part that an earlier repair set aside and did not come to replace."""
        beginning = keys.quarantine(suspect.shard, suspect.part, "").removesuffix(".json")
        for key in self._store.list(beginning):
            try:
                yield parse_record(self._store.read(key), key).numerics
            except DamagedError:
                continue


def set_aside(store: Store, suspect: Suspect) -> str:
    """Copy the part's record to quarantine and delete it; return the copy's key.

    Raises:
        KubesaeError: the record is not what it was when its part was found damaged.

    """
    data, record = suspect.data or b"", keys.record(suspect.shard, suspect.part)
    copy = keys.quarantine(suspect.shard, suspect.part, sha256_hex(data)[:12])
    store.create(copy, data)
    if not store.exists(record) or store.read(record) != data:
        raise KubesaeError(
            f"{suspect.name}: {store.url_of(record)} has changed since it was read, so another repair is at work "
            "here; the record was left alone. Let it end, then repair again."
        )
    store.delete(record)
    return copy
