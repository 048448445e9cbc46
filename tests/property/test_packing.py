"""Packing: every token of every document lies in the contexts once, in order, and traces back to where it came from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kubesae.corpus import Encoded, Packer, ShardTokens

BOS, SEPARATOR = 901, 902
DOCUMENTS = st.lists(st.integers(0, 40), max_size=12)  # tokens of each document


def pack(lengths: list[int], context: int, bos: int | None, separator: int | None) -> Packer:
    packer = Packer(context, bos, separator)
    for number, length in enumerate(lengths):
        ids = np.arange(length, dtype=np.uint32) + 1000 * (number + 1)
        packer.add(f"d{number}", Encoded(ids, lambda token: 3 * token))
    return packer


@given(DOCUMENTS, st.integers(2, 17), st.sampled_from([None, BOS]), st.sampled_from([None, SEPARATOR]))
def test_all_tokens_are_there_once_in_order_up_to_the_dropped_tail(
    lengths: list[int], context: int, bos: int | None, separator: int | None
) -> None:
    packer = pack(lengths, context, bos, separator)
    contexts, pieces = packer.take()
    assert contexts.shape == (len(packer), context)
    assert contexts.dtype == np.uint32
    body = contexts
    if bos is not None:
        assert (contexts[:, 0] == bos).all()
        body = contexts[:, 1:]
    stream = [
        token
        for number, length in enumerate(lengths)
        if length
        for token in [*range(1000 * (number + 1), 1000 * (number + 1) + length), separator]
        if token is not None
    ]
    kept = body.size
    assert body.reshape(-1).tolist() == stream[:kept]
    assert len(stream) - kept < body.shape[1]
    assert sum(piece.tokens for piece in pieces) == kept


@given(DOCUMENTS, st.integers(2, 17), st.sampled_from([None, BOS]), st.sampled_from([None, SEPARATOR]))
def test_pieces_trace_back_to_document_offset_and_character(
    lengths: list[int], context: int, bos: int | None, separator: int | None
) -> None:
    contexts, pieces = pack(lengths, context, bos, separator).take()
    seen = np.zeros(contexts.shape, np.int64)
    if bos is not None:
        seen[:, 0] = 1
    for piece in pieces:
        seen[piece.context, piece.start : piece.start + piece.tokens] += 1
        number = int(piece.document[1:])
        for i in range(piece.tokens):
            token = contexts[piece.context, piece.start + i]
            at = piece.offset + i
            assert token == (1000 * (number + 1) + at if at < lengths[number] else separator)
        assert piece.char == (3 * piece.offset if piece.offset < lengths[number] else -1)
    assert (seen == 1).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_documents_of_a_range_of_rows_are_cut_to_it(lengths: list[int], data: st.DataObject) -> None:
    start = np.cumsum([0, *lengths])[:-1] + np.arange(len(lengths))  # a row between documents belongs to none (BOS)
    total = int(start[-1] + lengths[-1])
    names = [f"d{i}" for i in range(len(lengths))]
    tokens = ShardTokens(
        np.zeros(total, np.uint32), start, np.array(lengths), np.full(len(lengths), 100), ["c"] * len(lengths), names
    )
    first = data.draw(st.integers(0, total - 1))
    rows = data.draw(st.integers(1, total - first))
    owner: list[tuple[str, int] | None] = [None] * total
    for i, (begin, length) in enumerate(zip(start.tolist(), lengths, strict=True)):
        for j in range(length):
            owner[begin + j] = (f"d{i}", 100 + j)
    found: list[tuple[str, int] | None] = [None] * rows
    for document in tokens.documents(first, rows):
        for j in range(document.tokens):
            found[document.start + j] = (document.document, document.offset + j)
    assert found == owner[first : first + rows]
