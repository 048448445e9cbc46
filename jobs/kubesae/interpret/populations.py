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
    from kubesae.features import CodeCache
    from kubesae.ledger import Plan
    from kubesae.store import Store

_NO_CORPUS = -1


def populations_table(data: Store, manifest: TokensManifest, plan: Plan, cache: CodeCache) -> pa.Table:
    """Return counts of every feature in every corpus, by feature and corpus; rows without a document are in none."""
    names = sorted({corpus.name for corpus in manifest.corpora})
    rows_C = np.zeros(len(names), np.int64)
    count_FC = np.zeros((cache.features, len(names)), np.int64)
    sum_FC = np.zeros((cache.features, len(names)))
    shard, tokens = -1, None
    for codes in cache.files():
        own, start = plan.locate(codes.first_row)
        if tokens is None or own != shard:
            shard, tokens = own, read_shard_tokens(data, manifest, own)
        corpus_R = _corpora(tokens, names, start, len(codes.kept_R))
        rows_C += np.bincount(corpus_R[codes.kept_R & (corpus_R != _NO_CORPUS)], minlength=len(names))
        corpus_N = corpus_R[codes.row_N]
        inside = corpus_N != _NO_CORPUS
        cell_N = codes.features_N()[inside].astype(np.int64) * len(names) + corpus_N[inside]
        count_FC += np.bincount(cell_N, minlength=count_FC.size).reshape(count_FC.shape)
        sum_FC += np.bincount(cell_N, codes.value_N[inside], minlength=count_FC.size).reshape(count_FC.shape)
    return _table(names, rows_C, count_FC, sum_FC)


def _corpora(tokens: ShardTokens, names: list[str], start: int, rows: int) -> npt.NDArray[np.int64]:
    """Corpus of each of `rows` rows of a shard from `start` on, as a number in `names`."""
    corpus_R = np.full(rows, _NO_CORPUS, np.int64)
    number = {name: i for i, name in enumerate(names)}
    for document in tokens.documents(start, rows):
        corpus_R[document.start : document.start + document.tokens] = number[document.corpus]
    return corpus_R


def _table(
    names: list[str], rows_C: npt.NDArray[np.int64], count_FC: npt.NDArray[np.int64], sum_FC: npt.NDArray[np.float64]
) -> pa.Table:
    features = len(count_FC)
    return pa.table(
        {
            "feature": pa.array(np.repeat(np.arange(features, dtype=np.int32), len(names))),
            "population": pa.array(names * features, pa.string()),
            "rows": np.tile(rows_C, features),
            "count": count_FC.ravel(),
            "mean_active": (sum_FC / np.maximum(count_FC, 1)).astype(np.float32).ravel(),
        }
    ).cast(POPULATIONS)
