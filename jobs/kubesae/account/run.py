"""Account for every token of the plan: stored, flagged or missing, by shard, corpus and document.

    kubesae ledger experiment.yaml

What is stored follows from a listing of the ledger, whose token is where from `documents-*.parquet`, and how many rows
have which flag from the commit records. Which rows these are is only in the tars: with a layer given, their flags are
read, one byte a row, by ranged reads.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kubesae.account.counts import Account, CorpusCount, Count, DocumentCount, LayerFlags, ShardCount
from kubesae.account.pieces import Pieces, pieces_of
from kubesae.corpus import read_documents, require_manifest
from kubesae.ledger import Plan, committed_parts, keys, read_identity, read_record
from kubesae.parallel import READERS, in_order
from kubesae.shards import layer_blocks, read_flags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.ledger import Record
    from kubesae.store import Store


def account(
    store: Store,
    experiment: Experiment,
    *,
    flags_layer: int | None = None,
    documents: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Account:
    """Account for every token of the plan.

    Args:
        store: the data store.
        experiment: gives the plan as long as nothing has been collected.
        flags_layer: read the flags of this layer, to count flagged rows by shard, corpus and document.
        documents: count by document too.
        progress: called with the number of parts read and of all that are stored.

    Raises:
        ConfigError: no tokens have been prepared, or there is no such layer.
        DamagedError: a record or a file of the tokens is not what it should be.

    """
    manifest, identity = require_manifest(store), read_identity(store)
    if flags_layer is not None and identity is not None:
        identity.check_layer(flags_layer, store.url)
    accountant = _Accountant(store, Plan.of(identity or experiment), manifest, identity, flags_layer)
    return accountant.run(progress, documents=documents)


class _Accountant:
    """Goes through the shards one by one."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        manifest: TokensManifest,
        identity: DataIdentity | None,
        flags_layer: int | None,
    ) -> None:
        self._store = store
        self._plan = plan
        self._manifest = manifest
        self._identity = identity
        self._flags_layer = flags_layer
        self._layers: dict[int, npt.NDArray[np.int64]] = {}
        self._by_document: dict[tuple[str | None, str | None], npt.NDArray[np.int64]] = {}

    def run(self, progress: Callable[[int, int], None], *, documents: bool) -> Account:
        """Account for all shards."""
        plan = self._plan
        parts = [
            sorted(part for part in committed_parts(self._store, shard) if part < plan.parts(shard))
            for shard in range(plan.num_shards)
        ]
        done, total = 0, sum(map(len, parts))
        shards = []
        for shard in range(plan.num_shards):
            pieces = self._pieces(shard)
            flagged_P = np.zeros(len(pieces.start_P), np.int64)
            read = in_order(partial(self._read, shard), parts[shard], READERS)
            for part, (record, marked) in zip(parts[shard], read, strict=True):
                self._add_flags(record)
                if marked is not None:
                    pieces.add_marked(flagged_P, plan.part(shard, part), marked)
                done += 1
                progress(done, total)
            counts = np.stack([pieces.planned_P, pieces.stored_P(plan, shard, set(parts[shard])), flagged_P], axis=1)
            self._add_pieces(pieces, counts)
            shards.append(ShardCount(shard=shard, **self._count(counts.sum(axis=0))))
        return self._account(shards, documents=documents)

    def _pieces(self, shard: int) -> Pieces:
        tokens = read_documents(self._store, self._manifest, shard, np.zeros(0, np.uint32))
        return pieces_of(tokens, self._plan.context, self._plan.quota(shard))

    def _read(self, shard: int, part: int) -> tuple[Record, npt.NDArray[np.bool_] | None]:
        """Read the record of a part, and which of its rows are flagged where that was asked for."""
        record = read_record(self._store, shard, part)
        identity = self._identity
        if identity is not None:
            record.check_place(identity.sha256, shard, part, self._store.url_of(keys.record(shard, part)))
        if self._flags_layer is None or identity is None:
            return record, None
        refs = layer_blocks(record, self._plan, self._flags_layer)
        return record, np.concatenate([read_flags(self._store, ref, identity) != 0 for ref in refs])

    def _add_flags(self, record: Record) -> None:
        for layer in record.layers:
            self._layers.setdefault(layer.layer, np.zeros(3, np.int64))
            self._layers[layer.layer] += layer.flags

    def _add_pieces(self, pieces: Pieces, counts: npt.NDArray[np.int64]) -> None:
        for corpus, document, count in zip(pieces.corpus, pieces.document, counts, strict=True):
            if (corpus, document) in self._by_document:
                self._by_document[corpus, document] += count
            else:
                self._by_document[corpus, document] = count.copy()

    def _account(self, shards: list[ShardCount], *, documents: bool) -> Account:
        by_corpus: dict[str | None, npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
        number: dict[str | None, int] = defaultdict(int)
        for (corpus, document), count in self._by_document.items():
            by_corpus[corpus] += count
            number[corpus] += document is not None
        names: Iterable[str | None] = [corpus.name for corpus in self._manifest.corpora]
        names = [*names, *(name for name in by_corpus if name not in names)]
        return Account(
            data=self._store.url,
            total=Count(**self._count(sum(by_corpus.values(), np.zeros(3, np.int64)))),
            shards=tuple(shards),
            corpora=tuple(
                CorpusCount(corpus=name, documents=number[name], **self._count(by_corpus[name])) for name in names
            ),
            documents=tuple(self._documents()) if documents else None,
            flags=tuple(
                LayerFlags(layer=layer, first_position=first, special_token=special, norm_outlier=outlier)
                for layer, (first, special, outlier) in sorted(self._layers.items())
            ),
            flags_layer=self._flags_layer,
        )

    def _documents(self) -> list[DocumentCount]:
        found = [
            DocumentCount(corpus=corpus, document=document, **self._count(count))
            for (corpus, document), count in self._by_document.items()
        ]
        return sorted(found, key=lambda count: (-count.planned, count.corpus or "", count.document or ""))

    def _count(self, count: npt.NDArray[np.int64]) -> dict[str, Any]:
        planned, stored, flagged = count.tolist()
        return {
            "planned": planned,
            "stored": stored,
            "missing": planned - stored,
            "flagged": None if self._flags_layer is None else flagged,
        }
