"""SAE training: parameters as the SAEs have them, memory that grows with width, FLOP of the reference experiment."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kubesae.experiment import Sae
from kubesae.plan import Assumptions
from kubesae.plan.cost import training_seconds
from kubesae.plan.training import ARCHITECTURES, parameters_of, train
from planned import PRICES, REFERENCE, planned, work_for

H100 = PRICES.node("h100")


def _train(work, assumptions=None, **settings):
    return train(work, H100, assumptions or Assumptions(), Sae(**settings), "sae")


def test_parameters_by_architecture():
    assert {name: parameters_of(6, 16, name) - (2 * 96 + 16 + 6) for name in ARCHITECTURES} == {
        "relu": 0,
        "topk": 0,
        "batchtopk": 0,
        "matryoshka": 0,
        "jumprelu": 16,  # log_threshold
        "gated": 32,  # r_mag, b_gate
    }


def test_the_reference_sae_takes_ten_hours_done_densely_not_one():
    (training,) = planned("kimi-k2-thinking", **REFERENCE).trainings
    assert training.d_sae == 57_344
    assert training.dense_flops == pytest.approx(1.5e19, rel=0.04)
    assert 9 < training.dense_seconds / 3600 < 12
    assert training.compute_seconds < training.dense_seconds / 2
    assert training.bound_by == "reading"  # 43 TB at 1 GB/s
    assert training.seconds == training.reading_seconds


def test_memory_is_weights_moments_and_gradients():
    training = _train(work_for("kimi-k2-thinking"), expansion=8)
    needs = {need.what: need.bytes for need in training.memory.needs}
    assert needs["weights"] == 4 * training.parameters
    assert needs["Adam's moments"] == 8 * training.parameters
    assert training.checkpoint_bytes == 12 * training.parameters
    assert sum(needs.values()) == training.memory.needed


def test_every_architecture_at_every_width():
    widths = planned("gpt2").widths
    assert [(training.name, training.architecture) for training in widths] == [
        (f"{expansion}x", architecture) for expansion in (4, 8, 16) for architecture in ARCHITECTURES
    ]
    for architecture in ARCHITECTURES:
        rising = [training for training in widths if training.architecture == architecture]
        for smaller, larger in pairwise(rising):
            assert larger.parameters > smaller.parameters
            assert larger.memory.needed > smaller.memory.needed
            assert larger.dense_seconds > smaller.dense_seconds


def test_more_gpus_share_out_the_rows():
    work = work_for("kimi-k2-thinking")
    one, four = _train(work), _train(work, Assumptions(train_gpus=4))
    assert four.reading_seconds == pytest.approx(one.reading_seconds / 4)
    assert one.compute_seconds / 4 < four.compute_seconds < one.compute_seconds  # each takes its own step of Adam


def test_saes_that_share_a_reading_take_less_than_one_after_the_other():
    saes = [Sae(name=name, expansion=8) for name in ("a", "b")]
    work = work_for("kimi-k2-thinking")
    trainings = [_train(work, expansion=8) for _ in saes]
    together = training_seconds(trainings, saes)
    assert together == max(2 * trainings[0].compute_seconds, trainings[0].reading_seconds)
    apart = [saes[0], Sae(name="b", expansion=8, order_seed=1)]
    assert training_seconds(trainings, apart) == sum(training.seconds for training in trainings)


def test_max_tokens_and_validation_are_left_out():
    work = work_for("gpt2")
    assert _train(work, epochs=2, max_tokens=1_000_000, validation=0.1).rows == 1_800_000
