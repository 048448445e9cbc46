"""What does not fit, and that the change which is named makes it fit."""

from __future__ import annotations

import re

import pytest

from planned import planned


def _change(report):
    (problem,) = [problem for problem in report.problems if problem.blocks]
    return problem.change


def test_more_gpus_a_slot_is_the_first_thing_tried():
    report = planned("llama-3-70b", gpu="a100-40gb", gpus=1, engine="resident", layers=[79])
    assert _change(report) == "--engine auto: the other engine fits"
    kimi = planned("kimi-k2-thinking", gpu="b200", gpus=2, engine="resident", layers=[10])
    assert _change(kimi) == "--engine auto: the other engine fits"


@pytest.mark.parametrize(
    ("gpu", "gpus", "layers"), [("a100-40gb", 2, [45]), ("l40s", 2, [45]), ("l40s", 1, [60]), ("a100-40gb", 8, [30])]
)
def test_the_change_makes_it_fit(gpu, gpus, layers):
    report = planned("kimi-k2-thinking", gpu=gpu, gpus=gpus, layers=layers)
    assert report.collection.engine is None
    changes = [problem.change for problem in report.problems if problem.blocks]
    assert changes
    for change in changes:
        new_gpu = re.search(r"--gpu (\S+)", change)
        new_gpus = re.search(r"--gpus-per-slot (\d+)", change)
        new_layer = re.search(r"--layers (\d+)", change)
        after = planned(
            "kimi-k2-thinking",
            gpu=new_gpu[1].rstrip(":") if new_gpu else gpu,
            gpus=int(new_gpus[1]) if new_gpus else gpus,
            layers=[int(new_layer[1])] if new_layer else layers,
        )
        assert after.collection.engine is not None, change


def test_what_fits_has_no_problem():
    report = planned("gpt2")
    assert report.problems == ()


def test_the_other_engine_is_named_where_one_does_not_fit():
    report = planned("kimi-k2-thinking", layers=[45])
    (problem,) = report.problems
    assert not problem.blocks
    assert problem.change.startswith("planned with streamed; for resident: ")


@pytest.mark.parametrize(
    ("changes", "change"),
    [
        ({"expansion": 64}, "--feature-shards 2: 2 GPUs share out the features"),
        ({"expansion": 32, "batch_size": 1 << 20}, "--batch-size 131072"),
        ({"expansion": 1000}, "--expansion 16"),
    ],
)
def test_saes_that_do_not_fit_name_the_smallest_change(changes, change):
    report = planned("kimi-k2-thinking", layers=[45], sae=[changes])
    blocking = [problem for problem in report.problems if problem.blocks]
    assert [problem.change for problem in blocking] == [change]
    assert blocking[0].what.startswith("train layer-045-relu-")
