"""The pass in units: what one worker encodes between two things that it stores, so that a kill costs at most one.

A unit is a run of parts of one shard, of `interpret.unit_tokens` rows at least; more, where there would be over 1024
units otherwise. Its
statistics are one object, named by all that they are made of, which is there until the interpretation is. Workers share
the units, never wait, and whoever finds all of them merges: two who do so at once write the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING

from kubesae.errors import MissingError, StoreError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.interpret.state import from_bytes
from kubesae.ledger import keys
from kubesae.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.features import CodesFile, Source
    from kubesae.interpret.statistics import Statistics
    from kubesae.ledger import Plan
    from kubesae.shards import BlockRef
    from kubesae.store import Store

MOST_UNITS = 1024
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """Blocks that are encoded one after the other: their number among all, and the key of their statistics."""

    number: int
    refs: tuple[BlockRef, ...]
    key: str

    @property
    def first_row(self) -> int:
        """Global row of the first one."""
        return self.refs[0].row

    @property
    def rows(self) -> int:
        """Rows of the blocks, flagged ones included."""
        return sum(ref.rows for ref in self.refs)


def cut(refs: Sequence[BlockRef], plan: Plan, source: Source, unit_rows: int) -> list[Unit]:
    """Cut blocks, which come in row order, into units of at least `unit_rows` rows where the shard has as many."""
    rows = max(unit_rows, plan.tokens // MOST_UNITS)
    parts = -(-rows // (plan.contexts_per_part * plan.context))
    # A part that is not there yet ends a unit: the rows of one follow each other.
    gaps = accumulate((one.row + one.rows != other.row for one, other in pairwise(refs)), initial=0)
    groups = groupby(zip(refs, gaps, strict=False), key=lambda pair: (pair[0].shard, pair[0].part // parts, pair[1]))
    return [_unit(number, tuple(ref for ref, _ in group), source) for number, (_, group) in enumerate(groups)]


def _unit(number: int, refs: tuple[BlockRef, ...], source: Source) -> Unit:
    """Tars are named by their content, so the key is that of the very activations."""
    made_of = {
        "format": _FORMAT,
        "source": source.model_dump(mode="json", include={"identity", "sae_sha256", "layer", "top_k", "samples"}),
        "blocks": [[ref.tar, ref.offset, ref.bytes, ref.row, ref.rows] for ref in refs],
    }
    return Unit(number, refs, keys.interpretation_unit(source.sae, number, sha256_hex(canonical_json(made_of))[:12]))


def merged(
    output: Store, units: Sequence[Unit], source: Source, features: int
) -> tuple[Statistics, list[CodesFile]] | None:
    """Return the statistics of all units, and the files of their codes; None where one is not there.

    Raises:
        DamagedError: an object does not hold statistics.
        StoreError: the codes of a unit are gone; it is removed, so that it is encoded again.

    """
    if not {unit.key for unit in units} <= stored_units(output, source):
        return None
    total: Statistics | None = None
    files: list[CodesFile] = []
    names = [unit.key for unit in units]
    try:
        for key, data in zip(names, in_order(output.read, names, 1, ahead=1), strict=True):
            one, codes = from_bytes(data, features, source.top_k, source.samples, output.url_of(key))
            files.append(codes)
            if total is None:
                total = one
            else:
                total.merge(one)
    except MissingError:  # another worker has merged them, and removed them
        return None
    _require_codes(output, source, dict(zip(names, files, strict=True)))
    return None if total is None else (total, files)


def _require_codes(output: Store, source: Source, files: dict[str, CodesFile]) -> None:
    """Remove the units whose codes are not there, and raise StoreError if there are any."""
    there = output.list(keys.interpretation_codes(source.sae))
    lost = [unit for unit, file in files.items() if file.key not in there]
    for unit in lost:
        output.delete(unit)
    if lost:
        raise StoreError(
            f"The codes of {len(lost)} units are gone from {output.url}. Start again: these are encoded once more."
        )


def stored_units(output: Store, source: Source) -> set[str]:
    """Return the keys of all units of an SAE whose statistics are there, of other settings too."""
    return set(output.list(keys.interpretation_units(source.sae)))
