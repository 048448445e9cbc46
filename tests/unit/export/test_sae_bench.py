"""SAEBench's core result against the evaluation and all activations."""

import json

import pytest

from exported import dense, interpreted, subject, written
from kubesae.errors import ConfigError


def test_saebench_s_result_has_our_figures_and_says_which_are_not(small_store, tmp_path):
    opened = subject(small_store)
    out = written(small_store, "sae-bench", tmp_path)
    result = json.loads(out.read("small_eval_results.json"))
    metrics, evaluation = result["eval_result_metrics"], opened.evaluation
    assert metrics["reconstruction_quality"]["explained_variance"] == 1 - evaluation["fvu"]
    assert metrics["sparsity"]["l0"] == evaluation["l0"]
    f_RF = dense(opened)
    rows = opened.stored.info.rows
    density = (f_RF > 0).sum(0) / rows
    assert metrics["sparsity"]["l1"] == pytest.approx(float(f_RF.sum() / rows), rel=1e-5)
    assert metrics["misc_metrics"]["freq_over_1_percent"] == (density > 0.01).mean()
    assert metrics["misc_metrics"]["normalized_freq_over_10_percent"] == pytest.approx(
        density[density > 0.1].sum() / density.sum()
    )
    assert metrics["misc_metrics"]["average_max_decoder_cosine_sim"] == pytest.approx(0.7)
    unknown = set(result["eval_result_unstructured"]["not_measured"])
    assert "model_performance_preservation.ce_loss_score" in unknown
    assert "sparsity.l0" not in unknown
    for group, values in metrics.items():
        for name, value in values.items():
            assert (f"{group}.{name}" in unknown) == (value == -1)


def test_saebench_s_result_needs_an_evaluation(tmp_path):
    store = interpreted(tmp_path / "data")
    with pytest.raises(ConfigError, match="Run `kubesae evaluate"):
        written(store, "sae-bench", tmp_path)
    assert not (tmp_path / "sae-bench").exists()
