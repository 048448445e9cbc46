"""Objects that no record names: left by attempts that were killed or lost a race. Verify lists, gc removes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubesae.ledger.record import Record


def orphans(objects: Iterable[str], records: Iterable[Record]) -> list[str]:
    """Return the tars and moments among `objects` that none of `records` names, sorted.

    `records` must be all that there are: an object is an orphan only when every record could be read.
    """
    named = {key for record in records for layer in record.layers for key in (layer.key, layer.moments)}
    return sorted(key for key in objects if keys.parse_content(key) and key not in named)
