"""SAEDashboard's batches against all activations."""

import json
import re

import numpy as np
import pytest

from exported import dense, subject, written
from kubesae.export.dashboards import PER_INTERVAL
from small_sae import DEAD

WORD = re.compile(r"\w+")
# sae_dashboard 0.8.0, neuronpedia/neuronpedia_dashboard.py
DASHBOARD = WORD.findall(
    """feature_index neuron_alignment_indices neuron_alignment_values neuron_alignment_l1
correlated_neurons_indices correlated_neurons_l1 correlated_neurons_pearson correlated_features_indices
correlated_features_l1 correlated_features_pearson neg_str neg_values pos_str pos_values frac_nonzero
freq_hist_data_bar_values freq_hist_data_bar_heights logits_hist_data_bar_heights logits_hist_data_bar_values
n_prompts_total n_tokens_in_prompt dataset decoder_weights_dist activations vector"""
)


def test_dashboards_are_saedashboard_s(small_store, tmp_path, monkeypatch):
    monkeypatch.setattr("kubesae.export.dashboards.BATCH", 10)
    out = written(small_store, "sae-dashboard", tmp_path)
    opened = subject(small_store)
    f_RF = dense(opened)
    features = []
    for number in range(3):
        batch = json.loads(out.read(f"batch-{number}.json"))
        assert (batch["model_id"], batch["layer"], batch["sae_set"]) == ("planted", 4, "small")
        features += batch["features"]
    assert [feature["feature_index"] for feature in features] == opened.active.tolist()
    assert json.loads(out.read("skipped_indexes.json"))["skipped_indexes"] == [DEAD]
    rows = opened.stored.info.rows
    for feature in features:
        number, active = feature["feature_index"], f_RF[:, feature["feature_index"]]
        assert list(feature) == DASHBOARD
        assert feature["frac_nonzero"] == pytest.approx((active > 0).sum() / rows)
        assert sum(feature["freq_hist_data_bar_heights"]) == (active > 0).sum()
        assert feature["pos_values"] == [1.1, pytest.approx(0.1 * number)]
        top = [one for one in feature["activations"] if one["bin_min"] == -1]
        largest = np.sort(active)[::-1][: len(top)]
        assert [one["values"][one["qualifying_token_index"]] for one in top] == pytest.approx(largest.tolist())
        assert [one["bin_max"] for one in top] == pytest.approx([float(active.max())] * len(top))
        check_intervals(feature["activations"][len(top) :], active, rows)
        decoder = opened.named.sae.weights.W_dec_FD[number]
        assert feature["neuron_alignment_indices"] == decoder.topk(3).indices.tolist()
        assert feature["neuron_alignment_l1"][0] == pytest.approx(float(decoder.max().abs() / decoder.abs().sum()))


def check_intervals(shown, active, rows):
    """Compare what stands in intervals with all activations."""
    assert shown
    assert [one["bin_min"] for one in shown] == sorted((one["bin_min"] for one in shown), reverse=True)
    for low in {one["bin_min"] for one in shown}:
        inside = [one for one in shown if one["bin_min"] == low]
        assert len(inside) <= PER_INTERVAL
        high = inside[0]["bin_max"]
        for one in inside:
            assert low * 0.999 <= one["values"][one["qualifying_token_index"]] <= high * 1.001
        count = (active > low).sum() - (active > high).sum() + (rows - (active > 0).sum() if low == 0 else 0)
        assert inside[0]["bin_contains"] == pytest.approx(count / rows, abs=1.5 / rows)
