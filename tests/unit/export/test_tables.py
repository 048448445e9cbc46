"""The tables, and the README that explains them."""

import io

import pyarrow.compute as pc
import pyarrow.parquet as pq

from exported import subject, written
from kubesae.export.tables import COLUMNS, MEANING
from kubesae.features import SCHEMAS
from kubesae.ledger import keys


def test_tables_are_the_stored_ones(small_store, tmp_path):
    out = written(small_store, "parquet", tmp_path)
    for name in ("statistics", "examples", "samples", *SCHEMAS):
        assert out.read(f"{name}.parquet") == small_store.read(keys.interpretation("small", f"{name}.parquet"))
    text = out.read("README.md").decode()
    opened = subject(small_store)
    for name in COLUMNS:
        table = pq.read_table(io.BytesIO(out.read(f"{name}.parquet")))
        assert f"## {name}.parquet" in text
        assert set(table.column_names) <= set(MEANING)
    assert opened.named.sha256 in text


def test_some_features_are_their_rows(small_store, tmp_path):
    out = written(small_store, "parquet", tmp_path, "3,7-8")
    whole = subject(small_store).stored.examples
    found = pq.read_table(io.BytesIO(out.read("examples.parquet")))
    assert set(found["feature"].to_pylist()) == {3, 7, 8}
    assert found.schema == whole.schema
    assert found.equals(whole.filter(pc.is_in(whole["feature"], value_set=found["feature"].unique())))
