"""Where an activation happened: its token, the tokens around it in the same context window, and its document.

Everything comes from the prepared tokens (4 bytes a token), not from a second read of the activations.
E = examples (rows of interest), W = tokens on each side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kubesae.corpus import read_shard_tokens

if TYPE_CHECKING:
    from kubesae.corpus import ShardTokens, TokensManifest
    from kubesae.interpret.kept import Entries
    from kubesae.ledger import Plan
    from kubesae.store import Store


def examples_table(store: Store, manifest: TokensManifest, plan: Plan, entries: Entries, width: int) -> pa.Table:
    """Return rows of every feature with their contexts, one row an example, by feature and rank.

    Columns: feature, rank (from 1), activation, row (global), token (id), corpus, document, offset (token of the
    document), before and after (token ids, at most `width`). corpus, document and offset are null for a row that
    belongs to no document.

    Args:
        store: the data store, which holds the tokens.
        manifest: of these tokens.
        plan: the plan of the data.
        entries: these rows; a cell is a feature.
        width: tokens on each side.

    """
    feature_E, place_E, value_E, row_E = entries
    starts = np.array([plan.global_row(shard, 0) for shard in range(plan.num_shards)])
    shard_E = np.searchsorted(starts, row_E, side="right") - 1
    tables = [_schema().empty_table()]
    for shard in np.unique(shard_E).tolist():
        here = np.flatnonzero(shard_E == shard)
        columns = _origins(read_shard_tokens(store, manifest, shard), row_E[here] - starts[shard], plan.context, width)
        columns["feature"] = pa.array(feature_E[here], pa.int32())
        columns["rank"] = pa.array(place_E[here] + 1, pa.int32())
        columns["activation"] = pa.array(value_E[here])
        columns["row"] = pa.array(row_E[here])
        tables.append(pa.table(columns).select(_schema().names).cast(_schema()))
    return pa.concat_tables(tables).sort_by([("feature", "ascending"), ("rank", "ascending")]).combine_chunks()


def _schema() -> pa.Schema:
    tokens = pa.list_(pa.uint32())
    return pa.schema(
        {
            "feature": pa.int32(),
            "rank": pa.int32(),
            "activation": pa.float32(),
            "row": pa.int64(),
            "token": pa.uint32(),
            "corpus": pa.string(),
            "document": pa.string(),
            "offset": pa.int64(),
            "before": tokens,
            "after": tokens,
        }
    )


def _origins(tokens: ShardTokens, row_E: npt.NDArray[np.int64], context: int, width: int) -> dict[str, pa.Array]:
    """Columns that say where rows `row_E` of a shard come from."""
    begin_E = row_E - row_E % context
    end_E = np.minimum(begin_E + context, len(tokens.ids))
    piece_E = np.searchsorted(tokens.start, row_E, side="right") - 1
    nowhere_E = (piece_E < 0) | (row_E >= tokens.start[piece_E] + tokens.tokens[piece_E])
    piece = pa.array(piece_E, mask=nowhere_E)
    offset_E = tokens.offset[piece_E] + row_E - tokens.start[piece_E]
    return {
        "token": pa.array(tokens.ids[row_E]),
        "corpus": pa.array(tokens.corpus, pa.string()).take(piece),
        "document": pa.array(tokens.document, pa.string()).take(piece),
        "offset": pa.array(offset_E, mask=nowhere_E),
        "before": _runs(tokens.ids, np.maximum(row_E - width, begin_E), row_E),
        "after": _runs(tokens.ids, row_E + 1, np.minimum(row_E + 1 + width, end_E)),
    }


def _runs(ids: npt.NDArray[np.uint32], start_E: npt.NDArray[np.int64], stop_E: npt.NDArray[np.int64]) -> pa.Array:
    """Lists of `ids[start:stop]`."""
    offsets = np.concatenate([[0], np.cumsum(stop_E - start_E)])
    index = np.arange(offsets[-1]) + np.repeat(start_E - offsets[:-1], stop_E - start_E)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids[index]))
