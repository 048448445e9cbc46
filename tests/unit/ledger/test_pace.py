"""States, rates and times left of shards, from commit times alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.ledger import Collection, Commits, Plan, ShardState, contiguous, shard_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

START = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = Plan(tokens=8000, num_shards=8, context=10, contexts_per_part=1, contexts_per_block=1)  # 100 parts of 10 rows


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def every(step: float, count: int, start: float = 0.0) -> dict[int, datetime]:
    return {part: at(start + step * part) for part in range(count)}


def states(
    commits: Mapping[int, Mapping[int, datetime]], now: float, shards: Iterable[int] = range(8)
) -> list[ShardState]:
    told = {shard: told_of(list(times.items())) for shard, times in commits.items()}
    return shard_states(PLAN, list(shards), told, {0: 12345}, 250, at(now))


def told_of(records: Iterable[tuple[int, datetime]]) -> Commits:
    commits = Commits()
    for part, time in records:
        commits.add(part, time)
    return commits


def test_a_shard_has_the_rate_of_its_commits_and_the_time_that_leaves() -> None:
    (state,) = states({0: every(2, 30)}, 59, [0])
    assert (state.state, state.tokens, state.total, state.chunk) == ("running", 300, 1000, 1)
    assert (state.parts, state.total_parts, state.bytes) == (30, 100, 12345)
    assert (state.last_commit, state.age, state.interval) == (at(58), 1.0, 2.0)
    assert (state.rate, state.eta) == (5.0, 140.0)


def test_a_pause_does_not_count() -> None:
    commits = every(2, 10) | {part: at(3600 + 2 * part) for part in range(10, 20)}
    (state,) = states({0: commits}, 3640, [0])
    assert (state.interval, state.rate) == (2.0, 5.0)


def test_only_recent_commits_count() -> None:
    commits = every(10, 40) | {part: at(400 + 5 * (part - 40)) for part in range(40, 70)}
    (state,) = states({0: commits}, 550, [0])
    assert (state.interval, state.rate) == (5.0, 2.0)


def test_what_is_behind_a_gap_is_no_progress_yet() -> None:
    (state,) = states({0: {0: at(0), 1: at(1), 3: at(2)}}, 3, [0])
    assert (state.tokens, state.parts) == (20, 3)


def test_a_shard_that_has_not_begun_waits() -> None:
    (state,) = states({}, 1e6, [5])
    assert (state.state, state.tokens, state.age, state.rate, state.eta) == ("waiting", 0, None, None, None)


@pytest.mark.parametrize(
    ("step", "age", "state"), [(2, 59, "running"), (2, 61, "silent"), (30, 149, "running"), (30, 151, "silent")]
)
def test_a_shard_is_silent_after_five_intervals_and_a_minute(step: float, age: float, state: str) -> None:
    (found,) = states({0: every(step, 10)}, 9 * step + age, [0])
    assert found.state == state
    assert (found.eta is None) == (state == "silent")


def test_one_commit_is_judged_by_the_pace_of_the_others() -> None:
    first, second, _ = states({0: every(30, 20), 1: {0: at(0)}}, 575, [0, 1, 2])
    assert (first.state, second.state) == ("running", "silent")
    assert states({1: {0: at(0)}}, 1e6, [1])[0].state == "running"  # nothing to compare with


def test_a_shard_is_slow_below_half_the_median_rate_of_three() -> None:
    found = states({0: every(2, 30), 1: every(2, 30), 2: every(4.1, 14)}, 59, [0, 1, 2])
    assert [state.state for state in found] == ["running", "running", "slow"]
    found = states({0: every(2, 30), 1: every(2, 30), 2: every(3.9, 14)}, 59, [0, 1, 2])
    assert [state.state for state in found] == ["running"] * 3
    found = states({0: every(2, 30), 2: every(20, 3)}, 59, [0, 2])
    assert [state.state for state in found] == ["running"] * 2


def test_a_complete_shard_is_complete_however_long_ago() -> None:
    (state,) = states({0: every(2, 100)}, 1e7, [0])
    assert (state.state, state.tokens, state.chunk, state.eta) == ("complete", 1000, 4, None)


def test_commits_within_one_tick_of_the_clock_give_no_rate_rather_than_a_wrong_one() -> None:
    (state,) = states({0: every(0, 5)}, 1, [0])
    assert (state.state, state.interval, state.rate, state.eta) == ("running", 0.0, None, None)


def test_the_total_is_the_sum_and_waits_for_the_slowest() -> None:
    total = Collection.of(states({0: every(2, 30), 1: every(4, 15), 2: every(2, 100)}, 59, [0, 1, 2]))
    assert (total.tokens, total.total, total.bytes, total.complete) == (1450, 3000, 12345, False)
    assert (total.rate, total.eta) == (7.5, 340.0)  # the second has 850 rows left, at 2.5 a second
    total = Collection.of(states({0: every(2, 30)}, 59, [0, 1]))
    assert (total.rate, total.eta) == (5.0, 340.0)  # the second is still to come, at the rate there is
    assert Collection.of(states({2: every(2, 100)}, 59, [2])).complete
    assert Collection.of(states({}, 0)).eta is None


@given(st.dictionaries(st.integers(0, 7), st.dictionaries(st.integers(0, 99), st.floats(0, 1e6))), st.floats(0, 2e6))
def test_whatever_the_times_the_states_are_sound(commits: dict[int, dict[int, float]], now: float) -> None:
    found = states({shard: {part: at(time) for part, time in parts.items()} for shard, parts in commits.items()}, now)
    total = Collection.of(found)
    assert total.total == PLAN.tokens
    for state in found:
        assert 0 <= state.tokens <= state.total
        assert (state.state == "complete") == (state.tokens == state.total)
        assert (state.state == "waiting") == (state.last_commit is None)
        assert state.eta is None or (state.moving and state.eta > 0)
        assert state.rate is None or state.rate > 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 10_000)), unique_by=lambda record: record[0]), st.data())
def test_commits_are_the_same_in_whatever_order_and_however_often_they_are_told(
    records: list[tuple[int, int]], data: st.DataObject
) -> None:
    told = [(part, at(time)) for part, time in records]
    again = data.draw(st.permutations(told + told[::2]))
    assert told_of(again) == told_of(told)
    assert told_of(told).done == contiguous(part for part, _ in told)
