"""How often features are active in each population of rows, a corpus, from the sparse-code cache.

F = features, C = corpora, R = rows, N = entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kubesae.corpus import read_shard_tokens
from kubesae.features.answers import POPULATIONS

if TYPE_CHECKING:
    from kubesae.corpus import ShardTokens, TokensManifest
    from kubesae.features import Codes
    from kubesae.ledger import Plan
    from kubesae.store import Store

_NO_CORPUS = -1


class Populations:
    """Counts of every feature in every corpus; rows without a document are in none.

    populations = Populations(data, manifest, plan, features)
    populations.add(codes)                  # of each file of the cache, in row order
    table = populations.table()             # `features.answers.POPULATIONS`
    """

    def __init__(self, data: Store, manifest: TokensManifest, plan: Plan, features: int) -> None:
        """Count nothing yet. `data` holds the tokens."""
        self._data, self._manifest, self._plan = data, manifest, plan
        self._names = sorted({corpus.name for corpus in manifest.corpora})
        self._rows_C = np.zeros(len(self._names), np.int64)
        self._count_FC = np.zeros((features, len(self._names)), np.int64)
        self._sum_FC = np.zeros((features, len(self._names)))
        self._shard: tuple[int, ShardTokens] | None = None

    def add(self, codes: Codes) -> None:
        """Count the rows of these codes."""
        shard, start = self._plan.locate(codes.first_row)
        if self._shard is None or self._shard[0] != shard:
            self._shard = shard, read_shard_tokens(self._data, self._manifest, shard)
        names, cells = self._names, self._count_FC.size
        corpus_R = _corpora(self._shard[1], names, start, len(codes.kept_R))
        self._rows_C += np.bincount(corpus_R[codes.kept_R & (corpus_R != _NO_CORPUS)], minlength=len(names))
        corpus_N = corpus_R[codes.row_N]
        inside = corpus_N != _NO_CORPUS
        cell_N = codes.features_N()[inside].astype(np.int64) * len(names) + corpus_N[inside]
        self._count_FC += np.bincount(cell_N, minlength=cells).reshape(self._count_FC.shape)
        self._sum_FC += np.bincount(cell_N, codes.value_N[inside], minlength=cells).reshape(self._sum_FC.shape)

    def table(self) -> pa.Table:
        """Return the counts, by feature and corpus."""
        features, corpora = self._count_FC.shape
        return pa.table(
            {
                "feature": pa.array(np.repeat(np.arange(features, dtype=np.int32), corpora)),
                "population": pa.array(self._names * features, pa.string()),
                "rows": np.tile(self._rows_C, features),
                "count": self._count_FC.ravel(),
                "mean_active": (self._sum_FC / np.maximum(self._count_FC, 1)).astype(np.float32).ravel(),
            }
        ).cast(POPULATIONS)


def _corpora(tokens: ShardTokens, names: list[str], start: int, rows: int) -> npt.NDArray[np.int64]:
    """Corpus of each of `rows` rows of a shard from `start` on, as a number in `names`."""
    corpus_R = np.full(rows, _NO_CORPUS, np.int64)
    number = {name: i for i, name in enumerate(names)}
    for document in tokens.documents(start, rows):
        corpus_R[document.start : document.start + document.tokens] = number[document.corpus]
    return corpus_R
