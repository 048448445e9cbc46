"""Features for circuit-tracer's viewer, found as it finds them."""

import gzip
import json
import zlib

import numpy as np
import pytest

from exported import dense, subject, written
from kubesae.export.circuit_tracer import percentiles
from small_sae import D_SAE, DEAD


def test_features_are_found_by_range(small_store, tmp_path):
    out = written(small_store, "circuit-tracer", tmp_path)
    index = json.loads(gzip.decompress(out.read("features/index.json.gz")))
    assert list(index) == ["4"]
    assert len(index["4"]["offsets"]) == D_SAE + 1
    f_RF = dense(subject(small_store))
    for feature, (start, end) in enumerate(zip(index["4"]["offsets"], index["4"]["offsets"][1:], strict=False)):
        data = out.read(f"features/{index['4']['filename']}", start, end)
        assert int.from_bytes(data[:4], "little") == len(data) - 4
        record = json.loads(zlib.decompress(data[4:]))
        active = np.sort(f_RF[f_RF[:, feature] > 0, feature])
        assert record["index"] == feature
        assert sum(record["histogram"]) == len(active)
        assert record["act_max"] == pytest.approx(float(f_RF[:, feature].max()))
        groups = {group["quantile_name"]: group["examples"] for group in record["examples_quantiles"]}
        assert next(iter(groups)) == "Top activations"
        assert len(groups) == 12
        if feature == DEAD:
            assert not any(groups.values())
            assert record["quantile_values"] == []
            continue
        top = [one["tokens_acts_list"][one["train_token_ind"]] for one in groups["Top activations"]]
        assert top == pytest.approx(active[::-1][: len(top)].tolist())
        width = record["act_max"] / 50
        wanted = np.quantile(active, np.arange(1, 100) / 100, method="inverted_cdf")
        assert np.abs(np.array(record["quantile_values"]) - wanted).max() <= 2 * width + 1e-6


def test_percentiles_take_bins_as_evenly_spread():
    count_B = np.zeros(50, np.int64)
    assert percentiles(count_B, 0.0) == []
    count_B[:] = 2
    assert percentiles(count_B, 100.0) == pytest.approx(list(range(1, 100)))
