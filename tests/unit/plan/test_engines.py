"""Resident memory, the choice between the engines, and what a preemption costs."""

from __future__ import annotations

import pytest

from kubesae.plan import Assumptions
from kubesae.plan.memory import fullest, resident_gpu
from planned import REFERENCE, machines_for, planned, work_for


@pytest.mark.parametrize(
    ("pieces", "bins", "largest"),
    [([5, 5, 5, 5], 2, 10), ([9, 1, 1, 1], 2, 9), ([1, 2, 3, 4, 5], 3, 6), ([7], 4, 7), ([0, 0, 3], 2, 3)],
)
def test_layers_lie_in_order_over_the_gpus(pieces, bins, largest):
    assert fullest(pieces, bins) == largest


def test_int4_is_expanded_and_fp8_stays_where_the_gpu_multiplies_it():
    kimi, deepseek = (work_for(name) for name in ("kimi-k2-thinking", "deepseek-v3"))
    needs = {
        (name, gpu): next(
            need.bytes
            for need in resident_gpu(work, machines_for(work, gpu, 8), Assumptions(), 8).needs
            if need.what == "weights"
        )
        for name, work in (("kimi", kimi), ("deepseek", deepseek))
        for gpu in ("h100", "a100-80gb")
    }
    assert needs["kimi", "h100"] == needs["kimi", "a100-80gb"]
    assert needs["deepseek", "a100-80gb"] == pytest.approx(2 * needs["deepseek", "h100"], rel=0.05)


def test_one_gpu_holds_all_of_what_two_share():
    work = work_for("qwen3-32b")
    spread, whole = (
        next(need.bytes for need in resident_gpu(work, machines_for(work), Assumptions(), gpus).needs)
        for gpus in (2, 1)
    )
    assert whole == pytest.approx(2 * spread, rel=0.06)


def test_all_gpus_of_a_slot_compute_where_one_holds_the_model():
    one, two = (planned("qwen3-32b", gpus=gpus, engine="resident") for gpus in (1, 2))
    assert two.collection.tokens_per_second == pytest.approx(2 * one.collection.tokens_per_second)
    # Llama-3-70B needs both: they take turns
    assert [e.gpus_busy for e in planned("llama-3-70b", gpus=2, layers=[70]).engines if e.name == "resident"] == [1]


def test_which_engine():
    assert planned("kimi-k2-thinking", **REFERENCE).collection.engine == "streamed"
    assert planned("qwen3-32b", gpus=2).collection.engine == "resident"
    # GPUs that a model is spread over take turns in the resident engine; in the streamed one they do not
    assert planned("llama-3-70b", gpus=2, layers=[70]).collection.engine == "streamed"
    asked = planned("llama-3-70b", gpus=2, engine="resident", layers=[70])
    assert (asked.collection.engine, asked.collection.why) == ("resident", "asked for")


def test_an_engine_that_was_asked_for_and_does_not_fit_is_not_replaced():
    report = planned("kimi-k2-thinking", engine="resident", **REFERENCE)
    assert report.collection.engine is None
    (problem,) = report.problems
    assert problem.blocks
    assert problem.change == "--engine auto: the other engine fits"


def test_a_new_node_fetches_what_is_loaded_and_no_more():
    report = planned("kimi-k2-thinking", **REFERENCE)
    assert report.reload.new_node_seconds == pytest.approx(180 + 15 + 444.7 / 5, rel=0.01)
    assert 15 < report.reload.same_node_seconds < 16  # the first layer; later ones load while it computes
    resident = planned("qwen3-32b", gpus=1)
    assert resident.reload.same_node_seconds > 16


def test_settings_that_differ_from_the_plan_are_named():
    said = "The experiment says collect.engine: resident. As planned it is streamed and collect.block_tokens: 262144."
    assert said in planned("kimi-k2-thinking", collect={"engine": "resident"}, **REFERENCE).warnings
    assert said not in planned("kimi-k2-thinking", collect={"engine": "streamed"}, **REFERENCE).warnings
