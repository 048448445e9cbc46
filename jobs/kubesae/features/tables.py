"""Tables about features as files of the store: Parquet, each known by its SHA-256."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from kubesae.errors import MissingError
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.parallel import in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from kubesae.store import Store

# Examples lie by feature; a group of this many rows is about a thousand features.
_ROW_GROUP = 20_000
_WRITERS = 2  # what takes longest are examples and samples


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=_ROW_GROUP, compression="zstd")
    return out.getvalue()


def tables_bytes(tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    """Return tables as Parquet files, by the same names."""
    return dict(zip(tables, in_order(table_bytes, tables.values(), _WRITERS), strict=True))


def read_tables(output: Store, sae: str, sha256: Mapping[str, str]) -> dict[str, pa.Table] | None:
    """Return the tables of an interpretation with these names and digests; None where one is not there, or another."""
    files = {}
    for name, wanted in sha256.items():
        try:
            files[name] = output.read(_key(sae, name))
        except MissingError:
            return None
        if sha256_hex(files[name]) != wanted:
            return None
    return {name: pq.read_table(io.BytesIO(data)) for name, data in files.items()}


def put_tables(output: Store, sae: str, files: Mapping[str, bytes]) -> None:
    """Write files of tables by their names."""
    for name, data in files.items():
        output.put(_key(sae, name), data)


def _key(sae: str, name: str) -> str:
    return keys.interpretation(sae, f"{name}.parquet")
