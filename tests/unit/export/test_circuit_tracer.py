"""Features for circuit-tracer's viewer, found as it finds them."""

import gzip
import json
import zlib

import pytest

from exported import interpreted, subject, written
from kubesae.errors import ConfigError, DamagedError
from kubesae.ledger import keys
from small_sae import D_SAE


def test_features_are_the_page_s_and_found_by_range(small_store, tmp_path):
    out = written(small_store, "circuit-tracer", tmp_path)
    index = json.loads(gzip.decompress(out.read("features/index.json.gz")))
    assert list(index) == ["4"]
    assert len(index["4"]["offsets"]) == D_SAE + 1
    statistics = subject(small_store).stored.statistics
    for feature, (start, end) in enumerate(zip(index["4"]["offsets"], index["4"]["offsets"][1:], strict=False)):
        data = out.read(f"features/{index['4']['filename']}", start, end)
        assert int.from_bytes(data[:4], "little") == len(data) - 4
        record = json.loads(zlib.decompress(data[4:]))
        assert record["index"] == feature
        assert record["act_max"] == pytest.approx(statistics["max"][feature].as_py(), rel=5e-3)
        assert record["activation_frequency"] == pytest.approx(statistics["frequency"][feature].as_py(), rel=5e-3)


def test_features_of_an_earlier_page_are_not_copied(tmp_path):
    store = interpreted(tmp_path / "data")
    store.put(keys.page_bin("small", 4, "0" * 12), b"of a page before")
    out = written(store, "circuit-tracer", tmp_path)
    assert sorted(key.rpartition(".")[2] for key in out.list("features/")) == ["bin", "gz"]
    store.put(keys.page_index("small"), b"no gzip")
    with pytest.raises(DamagedError, match="is no index of features"):
        written(store, "circuit-tracer", tmp_path / "again")


def test_a_page_of_another_interpretation_does_not_count(tmp_path):
    store = interpreted(tmp_path / "data")
    key = keys.page_file("small", "overview.json")
    store.put(key, store.read(key).replace(b"a", b"b"))
    with pytest.raises(ConfigError, match=r"has no page of this interpretation\. Run `kubesae interpret` again"):
        written(store, "circuit-tracer", tmp_path)
    assert not (tmp_path / "circuit-tracer").exists()
    store.delete(key)
    with pytest.raises(ConfigError, match="has no page"):
        written(store, "circuit-tracer", tmp_path)
