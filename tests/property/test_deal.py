"""The deal: each corpus gives exactly its share, no context twice, and the same seed deals the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kubesae.prepare.deal import Pool, deal, split_by_weight

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6)


@given(st.integers(0, 10**7), WEIGHTS)
def test_a_split_is_exact_and_off_by_less_than_one(total: int, weights: list[float]) -> None:
    counts = split_by_weight(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-6
        assert count >= 0


def test_equal_weights_share_the_rest_from_the_first_on() -> None:
    assert split_by_weight(11, [1, 1, 1]) == [4, 4, 3]
    assert split_by_weight(10, [3, 1]) == [8, 2]
    assert split_by_weight(1, [1, 1000]) == [0, 1]


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[Pool], list[int]]:
    made = [Pool(f"c{i}", tuple(draw(st.lists(st.integers(0, 9), max_size=4)))) for i in range(draw(st.integers(1, 4)))]
    return made, [draw(st.integers(0, pool.contexts)) for pool in made]


@given(pools(), st.integers(0, 5))
def test_contexts_are_dealt_once_and_each_corpus_its_count(drawn: tuple[list[Pool], list[int]], seed: int) -> None:
    made, wanted = drawn
    dealt = deal(made, wanted, seed)
    assert dealt.shape == (sum(wanted), 3)
    assert dealt.dtype == np.int64
    rows = {tuple(row) for row in dealt.tolist()}
    assert len(rows) == len(dealt)
    for number, (pool, count) in enumerate(zip(made, wanted, strict=True)):
        mine = [row for row in rows if row[0] == number]
        assert len(mine) == count
        assert all(0 <= context < pool.sizes[unit] for _, unit, context in mine)


def test_the_deal_is_a_function_of_the_seed_and_mixes() -> None:
    made, wanted = [Pool("a", (40, 60)), Pool("b", (100,))], [80, 20]
    first, again, other = deal(made, wanted, 1), deal(made, wanted, 1), deal(made, wanted, 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    halves = [int((half[:, 0] == 1).sum()) for half in np.split(first, 2)]
    assert min(halves) >= 4  # 10 are expected in each half
    assert (np.diff(first[:, 2]) < 0).any()
