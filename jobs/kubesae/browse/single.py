"""The page in one file, with some features in it: to send to somebody, and to open without any server.

    write_single(output, "layer-012-topk-4608", Path("features.html"), [12, 845])

It is made from the page in the store, and shows the same for these features.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from kubesae.browse.document import document
from kubesae.browse.files import DEAD, DENSE, OVERVIEW, TABLE
from kubesae.browse.packing import compact, read_gzip_json
from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.experiment import parse_json_object
from kubesae.ledger import keys
from kubesae.parallel import READERS, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kubesae.store import Store

MOST = 500


def require_page(output: Store, sae: str | None) -> str:
    """Return the name of the SAE whose page is meant: the one named, or the only one that has a page.

    Raises:
        ConfigError: there is no page of it, or more than one to choose from.

    """
    names = sorted(key.split("/")[1] for key in output.list("interpret/") if keys.page(key.split("/")[1]) == key)
    if not names:
        raise ConfigError(f"There is no page at {output.url} yet. Run `kubesae interpret` first.")
    if sae is None and len(names) > 1:
        raise ConfigError(f"There are several pages at {output.url}. Choose one with --sae-name: {', '.join(names)}.")
    if sae is not None and sae not in names:
        raise ConfigError(
            f"There is no page of SAE {sae!r} at {output.url}, but of: {', '.join(names)}. Run `kubesae interpret` for "
            "it, or choose one of these with --sae-name."
        )
    return sae or names[0]


def choose(output: Store, sae: str, count: int) -> list[int]:
    """Return `count` features to show: those of the purest labels, then of the largest activations; no dead ones.

    Dense features come last. Raises as `write_single`.
    """
    table = _table(output, sae)
    purity = table["purity"] or [None] * len(table["count"])
    live = [feature for feature, flags in enumerate(table["flags"]) if not flags & DEAD]

    def order(feature: int) -> tuple[int, float, float]:
        return table["flags"][feature] & DENSE, -(purity[feature] or 0.0), -table["max"][feature]

    return sorted(sorted(live, key=order)[:count])


def write_single(output: Store, sae: str, path: Path, features: Sequence[int]) -> None:
    """Write the page with these features to a file.

    Raises:
        ConfigError: they are more than MOST, or the SAE has no such feature, or the file cannot be written.
        DamagedError: the page in the store is not whole.

    """
    if not 0 < len(features) <= MOST:
        raise ConfigError(
            f"A page in one file holds 1 to {MOST} features, not {len(features)}. Name fewer, or a --count."
        )
    key = keys.page_file(sae, OVERVIEW)
    try:
        overview = parse_json_object(output.read(key), output.url_of(key))
        table, packed = _table(output, sae), _packed(output, sae, features)
    except MissingError as error:
        raise DamagedError(f"The page of {sae} is not whole: {error} Run `kubesae interpret` again.") from error
    embedded = {"overview": overview, "table": _only(table, features), "features": packed}
    try:
        path.write_text(document(compact(embedded)), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Give another --single-file.") from error


def _table(output: Store, sae: str) -> dict[str, Any]:
    key = keys.page_file(sae, TABLE)
    table: dict[str, Any] = read_gzip_json(output.read(key), output.url_of(key))
    return table


def _packed(output: Store, sae: str, features: Sequence[int]) -> dict[str, str]:
    """Return the bytes of each feature as base64, by its number."""
    key = keys.page_index(sae)
    (index,) = read_gzip_json(output.read(key), output.url_of(key)).values()
    offsets, where = index["offsets"], keys.page_features(sae) + index["filename"]
    unknown = [feature for feature in features if not 0 <= feature < len(offsets) - 1]
    if unknown:
        raise ConfigError(f"SAE {sae} has no feature {unknown[0]}: its features are 0 to {len(offsets) - 2}.")

    def read(feature: int) -> bytes:
        return output.read(where, offsets[feature], offsets[feature + 1])

    found = in_order(read, features, READERS)
    return {str(feature): base64.b64encode(data).decode() for feature, data in zip(features, found, strict=True)}


def _only(table: dict[str, Any], features: Sequence[int]) -> dict[str, Any]:
    """Return the columns of some features, with their numbers."""

    def chosen(column: Any) -> Any:
        return [column[feature] for feature in features] if isinstance(column, list) else column

    fewer = {name: chosen(column) for name, column in table.items() if name not in {"features", "populations"}}
    populations = [{name: chosen(column) for name, column in one.items()} for one in table["populations"]]
    return fewer | {"features": list(features), "populations": populations}
