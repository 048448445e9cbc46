"""What verify itself writes once all parts are right: the index, the lists of URLs, the merged moments.

Where one is there already it is compared first, with the records and not with bytes: another version of a library may
write the same rows in other bytes, and a copied prefix has other URLs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kubesae.errors import DamagedError, MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import Damage, Finding, keys
from kubesae.parallel import in_order
from kubesae.shards import Moments, blocks_of, read_index, write_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.ledger import LayerRecord, Record
    from kubesae.verify.context import Context


class Derived:
    """What follows from `records`, which are right; `whole`: they are all that the plan has."""

    def __init__(self, context: Context, records: Sequence[Record], *, whole: bool, workers: int) -> None:
        """Read the parts' moments if the records are whole."""
        self._context = context
        self._records = records
        self._whole = whole
        self._refs = sorted(ref for record in records for ref in blocks_of(record, context.plan))
        self._moments = {layer: self._add(layer, workers) for layer in context.identity.layers} if whole else {}

    def check(self) -> Iterator[Finding]:
        """Compare with what is there."""
        if keys.INDEX in self._context.objects:
            yield from self._check_index()
        for layer in self._context.identity.layers:
            if keys.merged_moments(layer) in self._context.objects:
                yield from self._check_moments(layer)
            if self._whole and keys.layer_urls(layer) in self._context.objects:
                yield from self._check_urls(layer)

    def write(self) -> None:
        """Write all of it."""
        store = self._context.store
        write_index(store, self._context.identity, self._refs)
        for layer, moments in self._moments.items():
            store.put(keys.merged_moments(layer), moments.to_bytes())

    def _check_index(self) -> Iterator[Finding]:
        """Rows of the parts that are right: they must be these; rows of others say nothing."""
        parts = {(record.shard, record.part) for record in self._records}
        try:
            found = [
                ref
                for layer in self._context.identity.layers
                for ref in read_index(self._context.store, self._context.identity, layer)
                if self._whole or (ref.shard, ref.part) in parts
            ]
        except DamagedError as error:
            yield Finding(kind=Damage.DAMAGED_INDEX, key=keys.INDEX, detail=str(error))
            return
        if sorted(found) != self._refs:
            detail = "its rows are not those of the records"
            yield Finding(kind=Damage.DAMAGED_INDEX, key=keys.INDEX, detail=detail)

    def _check_urls(self, layer: int) -> Iterator[Finding]:
        key = keys.layer_urls(layer)
        wanted = dict.fromkeys(ref.tar for ref in self._refs if ref.layer == layer)
        lines = self._context.store.read(key).decode(errors="replace").splitlines()
        if len(lines) != len(wanted) or not all(
            line.endswith(f"/{tar}") for line, tar in zip(lines, wanted, strict=True)
        ):
            yield Finding(kind=Damage.DAMAGED_INDEX, key=key, detail="its lines are not the tars of the records")

    def _check_moments(self, layer: int) -> Iterator[Finding]:
        key = keys.merged_moments(layer)
        try:
            found = Moments.from_bytes(self._context.store.read(key), key)
        except DamagedError as error:
            yield Finding(kind=Damage.WRONG_MOMENTS, key=key, detail=str(error))
            return
        if self._whole and not _equal(found, self._moments[layer]):
            yield Finding(kind=Damage.WRONG_MOMENTS, key=key, detail="they are not the sum of the parts' moments")

    def _add(self, layer: int, workers: int) -> Moments:
        """Add the parts' moments in the order of the plan, so that any number of workers gives the same bits."""
        parts = [entry for record in self._records for entry in record.layers if entry.layer == layer]
        total = Moments.zero(self._context.identity.d_model)
        for moments in in_order(self._read, parts, workers):
            total += moments
        return total

    def _read(self, layer: LayerRecord) -> Moments:
        """Read the moments of a part, which were right when the part was checked."""
        try:
            data = self._context.store.read(layer.moments)
        except MissingError:
            data = b""
        if sha256_hex(data) != layer.moments_sha256:
            url = self._context.url(layer.moments)
            raise DamagedError(f"{url} has changed while the data was verified. Run `kubesae verify` again.")
        return Moments.from_bytes(data, layer.moments)


def _equal(a: Moments, b: Moments) -> bool:
    pairs = (a.total, b.total), (a.squares, b.squares), (a.histogram, b.histogram)
    return (a.rows, a.count) == (b.rows, b.count) and all(np.array_equal(*pair) for pair in pairs)
