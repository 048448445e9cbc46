"""Pieces cover a shard once, so whatever is counted over them adds up to the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesae.account import Pieces, pieces_of
from kubesae.corpus import ShardTokens
from kubesae.ledger import Plan


@st.composite
def shards(draw: st.DrawFn) -> tuple[Plan, ShardTokens, dict[int, str]]:
    """A shard as prepare makes them: BOS, then runs of documents of one corpus, in each context."""
    tokens = draw(st.integers(1, 400))
    context = draw(st.integers(2, 20))
    plan = Plan(tokens, 1, context, draw(st.integers(1, 4)), 1)
    bos = draw(st.booleans())
    runs: list[tuple[int, int, str, str]] = []
    corpus_of = {}
    for number in range(plan.contexts(0)):
        corpus_of[number] = draw(st.sampled_from("ab"))
        at, end = number * context + bos, min((number + 1) * context, tokens)
        while at < end:
            take = draw(st.integers(1, end - at))
            runs.append((at, take, corpus_of[number], f"document {draw(st.integers(0, 5))}"))
            at += take
    start, count, corpus, document = zip(*runs, strict=True) if runs else ((), (), (), ())
    found = ShardTokens(
        ids=np.zeros(0, np.uint32),
        start=np.array(start, np.int64),
        tokens=np.array(count, np.int64),
        offset=np.zeros(len(runs), np.int64),
        corpus=corpus,
        document=document,
    )
    return plan, found, corpus_of


@given(shards(), st.data())
@settings(derandomize=True, deadline=None, database=None)
def test_counts_over_pieces_are_those_over_rows(shard: tuple[Plan, ShardTokens, dict[int, str]], data: Any) -> None:
    plan, tokens, corpus_of = shard
    pieces = pieces_of(tokens, plan.context, plan.tokens)
    assert pieces.start_P[0] == 0
    assert pieces.stop_P[-1] == plan.tokens
    assert np.array_equal(pieces.start_P[1:], pieces.stop_P[:-1])
    assert (pieces.planned_P > 0).all()
    parts = data.draw(st.sets(st.integers(0, plan.parts(0) - 1)))
    generator = np.random.Generator(np.random.PCG64(data.draw(st.integers(0, 99))))
    is_stored, is_marked = np.zeros(plan.tokens, bool), np.zeros(plan.tokens, bool)
    marked_P = np.zeros(len(pieces.start_P), np.int64)
    for number in parts:
        part = plan.part(0, number)
        rows = slice(part.start, part.start + part.rows)
        is_stored[rows] = True
        is_marked[rows] = generator.random(part.rows) < 0.3
        pieces.add_marked(marked_P, part, is_marked[rows])
    stored_P = pieces.stored_P(plan, 0, parts)
    for i, (start, stop) in enumerate(zip(pieces.start_P, pieces.stop_P, strict=True)):
        assert stored_P[i] == is_stored[start:stop].sum()
        assert marked_P[i] == is_marked[start:stop].sum()
        alone = pieces.document[i] is None and stop == plan.tokens and start == stop - 1
        assert pieces.corpus[i] == corpus_of[start // plan.context] or alone
    assert stored_P.sum() == sum(plan.part(0, part).rows for part in parts)


def test_a_cut_context_of_which_only_bos_is_left_has_no_corpus() -> None:
    tokens = ShardTokens(
        np.zeros(0, np.uint32), np.array([1]), np.array([3]), np.array([0]), corpus=["a"], document=["one"]
    )
    pieces: Pieces = pieces_of(tokens, 4, 5)
    assert (pieces.corpus, pieces.document) == (["a", "a", None], [None, "one", None])
