"""The numbers as people read them: shares, rates, times, and from where work would go on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.ledger import TrainPoint
from kubesae_operator.bucket import SaeProgress
from kubesae_operator.progress import FIELDS, eta, percent, progress
from observed import collection, experiment, observed, pod, view


def collected(done, parts=4, **changes):
    return view(collection=collection(done, parts, **changes), next_parts=tuple(done))


def shown(look, pods=()):
    return progress(observed(pods=pods, view=look))


def test_a_collection_that_goes_on():
    # Parts of 100 tokens, one each 10 seconds.
    found = shown(replace(collected([2, 4, 3]), bytes=1234))
    rows = found.pop("shardRows")
    assert found == {
        "shards": {"done": 1, "total": 3},
        "progress": "1/3",
        "tokens": 900,
        "totalTokens": 1200,
        "percent": "75.0%",
        "rate": "20/s",
        "eta": "20s",
        "bytes": 1234,
        "resume": "0:2 2:3",
    }
    assert rows == [
        f"{shard}: {tokens} tokens, chunk {chunk}, committed 2026-05-01T11:59:55Z"
        for shard, tokens, chunk in ((0, 200, 2), (1, 400, 4), (2, 300, 3))
    ]


def test_before_the_first_commit_there_is_neither_rate_nor_time():
    found = shown(collected([0, 0]))
    assert (found["tokens"], found["percent"], found["resume"]) == (0, "0.0%", "0:0 1:0")
    assert not {"rate", "eta"} & found.keys()
    assert found["shardRows"][0] == "0: 0 tokens, chunk 0"


def test_a_complete_collection_has_no_rate_and_nothing_to_go_on_from():
    found = shown(collected([4, 4]))
    assert (found["progress"], found["percent"]) == ("2/2", "100.0%")
    assert not {"rate", "eta", "resume"} & found.keys()


def test_a_silent_collection_has_no_rate():
    assert "rate" not in shown(collected([2, 2], ages=[3600, 3600]))


def test_of_many_shards_the_first_are_named_and_the_others_counted():
    assert shown(collected([4] + [1] * 8))["resume"] == " ".join(f"{shard}:1" for shard in range(1, 9))
    found = shown(collected([1] * 40))
    assert found["resume"].endswith(" 7:1 +32")
    assert "shardRows" not in found
    assert len(shown(collected([1] * 32))["shardRows"]) == 32


def test_restarts_of_a_shard_are_those_of_its_pods():
    pods = [pod(index=0, restarts=2), pod(index=0, restarts=5), pod(index=1), pod("pilot", index=1, restarts=9)]
    rows = shown(collected([1, 1]), pods)["shardRows"]
    assert rows[0].endswith(", restarts 5")
    assert "restarts" not in rows[1]


def point(step, loss=0.123456, l0=63.98):
    return TrainPoint(step, 1, loss, l0)


def test_the_sae_that_is_trained_now_is_shown_with_its_checkpoint():
    saes = (
        SaeProgress("a", trained=True, point=point(900)),
        SaeProgress("b", step=40, point=point(55)),
        SaeProgress("c"),
    )
    found = shown(view(saes=saes))
    assert found["train"] == {"sae": "b", "step": 55, "loss": "0.1235", "l0": "64.0", "summary": "0.1235/64.0"}
    assert found["resume"] == "step 40"


def test_after_training_the_last_sae_is_shown_and_nothing_is_left_to_go_on_from():
    saes = (SaeProgress("a", trained=True, point=point(900)), SaeProgress("b", trained=True, step=80, point=point(100)))
    found = shown(view(saes=saes))
    assert found["train"]["sae"] == "b"
    assert "resume" not in found


def test_before_training_and_before_its_first_checkpoint():
    assert shown(view(saes=(SaeProgress("a"),))) == {}
    assert "resume" not in shown(view(saes=(SaeProgress("a", point=point(3)),)))


def test_while_shards_are_left_they_say_where_work_goes_on():
    look = replace(collected([1]), saes=(SaeProgress("a", step=40, point=point(55)),))
    assert shown(look)["resume"] == "0:1"


def test_without_a_look_the_last_one_is_kept_and_nothing_else_of_the_status():
    status = {**dict.fromkeys(FIELDS, 1), "phase": "Collecting", "conditions": []}
    assert progress(observed(view=None, experiment=experiment(status=status))) == dict.fromkeys(FIELDS, 1)


def test_all_fields_that_a_look_can_give_are_kept_without_one():
    look = replace(collected([2, 4]), saes=(SaeProgress("b", step=40, point=point(55)),))
    assert shown(look).keys() == FIELDS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (45.4, "45s"), (99.4, "99s"), (99.6, "2m"), (3569, "59m"), (3570, "1h0m"), (4800, "1h20m"),
        (86_369, "23h59m"), (86_370, "1d0h"), (3 * 86_400 + 4 * 3600, "3d4h"), (10**9, "11574d1h"),
    ],
)  # fmt: skip
def test_times_are_written_as_kubernetes_writes_them(seconds, text):
    assert eta(seconds) == text


@given(st.integers(1, 10**15), st.data())
def test_a_hundred_percent_means_all(whole, data):
    part = data.draw(st.integers(0, whole))
    share = float(percent(part, whole))
    assert (share == 100.0) == (part == whole)
    assert share <= 100 * part / whole + 1e-9
    assert share > 100 * part / whole - 0.1001
