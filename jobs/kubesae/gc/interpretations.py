"""What interpretations leave that nobody needs once one is whole: units of other settings, codes it does not list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.features import read_info
from kubesae.gc.garbage import Garbage
from kubesae.ledger import keys

if TYPE_CHECKING:
    from datetime import timedelta

    from kubesae.store import ObjectInfo, Store


def find_leftovers(output: Store, grace: timedelta) -> Garbage:
    """Find units and codes older than `grace` of SAEs whose interpretation is there and does not name them.

    An SAE without an interpretation is left alone, and so is one with a unit that is younger: whoever interprets it
    goes on from them. Units go before the codes that they name, in the order of their keys from behind.
    """
    before = output.now() - grace
    objects = output.list(keys.INTERPRETATIONS)
    found: dict[str, ObjectInfo] = {}
    for name in {key.split("/")[1] for key in objects}:
        info = read_info(output, name)
        units = keys.interpretation_units(name)
        if info is not None and not any(key.startswith(units) and objects[key].modified >= before for key in objects):
            named = {file.key for file in info.codes}
            folders = (units, keys.interpretation_codes(name))
            found |= {key: own for key, own in objects.items() if key.startswith(folders) and key not in named}
    return Garbage({key: info for key, info in sorted(found.items(), reverse=True) if info.modified < before}, [], [])
