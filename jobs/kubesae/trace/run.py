"""Trace: from a global row to its token, the text around it, its document, and where its activation lies.

    kubesae trace experiment.yaml --row 123456

Two reads answer for a stored row, whatever the size of the data: its part's commit record, and the end of its block,
which holds tokens, flags and documents (`shards.tail`). Besides these there are only objects that are the same for all
rows: identity, manifest, tokenizer. A row that is planned but not collected is answered from the prepared tokens.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubesae.corpus import Vocabulary, check_definition, read_documents, read_token_range, require_manifest, split_text
from kubesae.errors import ConfigError, MissingError
from kubesae.ledger import Plan, keys, read_identity, read_record
from kubesae.shards import Document, layer_blocks, position_flags, read_row, read_tail
from kubesae.trace.traced import Place, Stored, Text, Traced

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.store import Store


@dataclass(frozen=True)
class _Context:
    """The tokens of the row's context. `documents` count rows from its first token."""

    ids: npt.NDArray[np.uint32]
    documents: Sequence[Document]


def trace(store: Store, experiment: Experiment, row: int, *, layer: int | None = None, norm: bool = False) -> Traced:
    """Trace a global row.

    Args:
        store: the data store.
        experiment: gives the plan where nothing has been collected, and how many tokens to show on each side.
        row: the global row.
        layer: the captured layer (default: the first).
        norm: read the activation too, for its norm: one more read.

    Raises:
        ConfigError: there is no such row or layer, or no tokens have been prepared.
        DamagedError: what is read is not what plan, record and manifest say.

    """
    with ThreadPoolExecutor(2) as pool:  # a store takes longer to answer than we to use it
        reading, definition = pool.submit(read_identity, store), pool.submit(store.read, keys.TOKENIZER)
        manifest = require_manifest(store)
        identity = reading.result()
        plan = Plan.of(identity or experiment)
        place = _place(plan, row, store)
        if layer is not None and identity is not None:
            identity.check_layer(layer, store.url)
        found = None if identity is None else _stored(store, identity, plan, place, layer, norm=norm)
        context, stored = found or (_prepared(store, manifest, plan, place), None)
    return Traced(
        row=row,
        place=place,
        text=_text(
            check_definition(definition.result(), store, manifest),
            context,
            place.position,
            experiment.interpret.context_tokens,
        ),
        flags=stored.flags if stored else _flags(manifest, context, place.position),
        stored=stored,
        **_origin(context.documents, place.position),
    )


def _place(plan: Plan, row: int, store: Store) -> Place:
    try:
        shard, shard_row = plan.locate(row)
    except IndexError:
        raise ConfigError(
            f"There is no row {row:,} at {store.url}: the data has rows 0 to {plan.tokens - 1:,}."
        ) from None
    context, position = divmod(shard_row, plan.context)
    part, contexts = divmod(context, plan.contexts_per_part)
    block, contexts = divmod(contexts, plan.contexts_per_block)
    return Place(
        shard=shard,
        shard_row=shard_row,
        context=context,
        position=position,
        part=part,
        block=block,
        block_row=contexts * plan.context + position,
    )


def _stored(
    store: Store, identity: DataIdentity, plan: Plan, place: Place, layer: int | None, *, norm: bool
) -> tuple[_Context, Stored] | None:
    """Read what the row's block says of it; None when its part is not committed yet."""
    wanted = identity.layers[0] if layer is None else layer
    try:
        record = read_record(store, place.shard, place.part)
    except MissingError:
        return None
    record.check_place(identity.sha256, place.shard, place.part, store.url_of(keys.record(place.shard, place.part)))
    ref = layer_blocks(record, plan, wanted)[place.block]
    tail = read_tail(store, ref, identity)
    start = place.block_row - place.position
    stop = min(start + plan.context, ref.rows)
    x = read_row(store, ref, identity, place.block_row) if norm else None
    stored = Stored(
        layer=wanted,
        tar=ref.tar,
        block=ref.key,
        flags=int(tail.flags[place.block_row]),
        norm=None if x is None else float(np.linalg.norm(x)),
    )
    documents = [
        Document(d.start - start, d.tokens, d.corpus, d.document, d.offset)
        for d in tail.documents()
        if d.start < stop and d.start + d.tokens > start
    ]
    return _Context(tail.tokens[start:stop], documents), stored


def _prepared(store: Store, manifest: TokensManifest, plan: Plan, place: Place) -> _Context:
    """Read the row's context from the prepared tokens: its ids by a ranged read, the documents of its shard whole."""
    start = place.shard_row - place.position
    stop = min(start + plan.context, plan.quota(place.shard))
    ids = read_token_range(store, place.shard, start, stop)
    return _Context(ids, read_documents(store, manifest, place.shard, ids).documents(start, stop - start))


def _text(definition: bytes, context: _Context, position: int, width: int) -> Text:
    before = context.ids[max(0, position - width) : position].tolist()
    token = int(context.ids[position])
    after = context.ids[position + 1 : position + 1 + width].tolist()
    vocabulary = Vocabulary(definition, [*before, token, *after])
    first, middle, last = split_text(vocabulary, before, token, after)
    return Text(token=token, before=first, marked=middle, after=last)


def _flags(manifest: TokensManifest, context: _Context, position: int) -> int:
    """Flags that follow from the tokens alone; whether the norm is an outlier is known once it is collected."""
    special = np.array(manifest.tokenizer.special, np.uint32)
    return int(position_flags(context.ids[position : position + 1], np.array([position]), special)[0])


def _origin(documents: Iterable[Document], position: int) -> dict[str, str | int | None]:
    for run in documents:
        if run.start <= position < run.start + run.tokens:
            return {"corpus": run.corpus, "document": run.document, "offset": run.offset + position - run.start}
    return {"corpus": None, "document": None, "offset": None}
