"""The tokens of one shard as prepare wrote them, checked against the manifest before anything is computed from them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.errors import DamagedError
from kubesae.experiment import sha256_hex
from kubesae.ledger import keys
from kubesae.shards import Document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus.manifest import TokensManifest
    from kubesae.store import Store

# Bytes of an npy file before its header; the last two hold the header's length.
_NPY_MAGIC = 10


@dataclass(frozen=True)
class ShardTokens:
    """Token ids of a shard, uint32 [quota], and the runs of documents they come from, ascending by `start`."""

    ids: npt.NDArray[np.uint32]
    start: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    corpus: Sequence[str]
    document: Sequence[str]

    def documents(self, start: int, rows: int) -> list[Document]:
        """Runs of documents in rows `start` to `start + rows`, cut to these rows; their `start` counts from there."""
        first = int(np.searchsorted(self.start + self.tokens, start, side="right"))
        last = int(np.searchsorted(self.start, start + rows, side="left"))
        found = []
        for i in range(first, last):
            begin = max(int(self.start[i]), start)
            end = min(int(self.start[i] + self.tokens[i]), start + rows)
            skipped = begin - int(self.start[i])
            found.append(
                Document(begin - start, end - begin, self.corpus[i], self.document[i], int(self.offset[i]) + skipped)
            )
        return found


def read_shard_tokens(store: Store, manifest: TokensManifest, shard: int) -> ShardTokens:
    """Read the tokens of `shard`.

    Raises:
        MissingError: a file is not there.
        DamagedError: they are not what the manifest says.

    """
    return read_documents(store, manifest, shard, read_token_ids(store, manifest, shard))


def read_token_ids(store: Store, manifest: TokensManifest, shard: int) -> npt.NDArray[np.uint32]:
    """Read the token ids of `shard` alone, uint32 [quota]. Raises as `read_shard_tokens`."""
    data = store.read(keys.tokens(shard))
    try:
        ids = np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # numpy evaluates the header, and raises whatever that raises
        raise DamagedError(_damage(store, keys.tokens(shard))) from error
    raw = memoryview(np.ascontiguousarray(ids)).cast("B") if ids.dtype == np.dtype("<u4") else b""
    if sha256_hex(raw) != manifest.shards[shard].sha256:
        raise DamagedError(_damage(store, keys.tokens(shard)))
    return ids


def read_token_range(store: Store, shard: int, start: int, stop: int) -> npt.NDArray[np.uint32]:
    """Read the token ids of rows `start` to `stop` of `shard`, uint32 [stop - start], without the others.

    A part of the file has no digest: what is read is not checked against the manifest.

    Raises:
        MissingError: the file is not there.
        DamagedError: it is shorter.

    """
    key = keys.tokens(shard)
    first = _NPY_MAGIC + int.from_bytes(store.read(key, _NPY_MAGIC - 2, _NPY_MAGIC), "little")
    ids = np.empty(stop - start, "<u4")
    store.read_into(key, first + start * ids.itemsize, memoryview(ids).cast("B"))
    return ids


def read_documents(store: Store, manifest: TokensManifest, shard: int, ids: npt.NDArray[np.uint32]) -> ShardTokens:
    """Read where the tokens of `shard`, whose ids are given, come from. Raises as `read_shard_tokens`."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra: only batch programs have it

    documents = store.read(keys.documents(shard))
    if sha256_hex(documents) != manifest.shards[shard].documents_sha256:
        raise DamagedError(_damage(store, keys.documents(shard)))
    table = pq.read_table(io.BytesIO(documents))
    return ShardTokens(
        ids=ids,
        start=table["start"].to_numpy(),
        tokens=table["tokens"].to_numpy(),
        offset=table["offset"].to_numpy(),
        corpus=table["corpus"].to_pylist(),
        document=table["document"].to_pylist(),
    )


def _damage(store: Store, key: str) -> str:
    return (
        f"{store.url}/{key} is not what tokens/manifest.json says: its SHA-256 differs. Restore it, or prepare the "
        "experiment under another prefix."
    )
