"""JSON by columns: every number and text is what Python's own JSON says, and records are whole."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesae.browse.columns import integers, joined, lists, mostly_zero, numbers, records, texts, tuples

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@SETTINGS
@given(st.lists(st.floats(width=32), max_size=20))
def test_numbers_have_three_significant_digits(values: list[float]) -> None:
    array = np.array(values, np.float32)
    found = [json.loads(text) for text in numbers(array).to_pylist()]
    for value, number in zip(array.tolist(), found, strict=True):
        if math.isfinite(value):
            assert abs(number - value) <= 0.00501 * abs(value) or abs(value) < np.finfo(np.float32).tiny
        else:
            assert number is None
    assert mostly_zero(array).to_pylist() == numbers(array).to_pylist()


def test_numbers_are_those_that_python_writes() -> None:
    values = np.random.default_rng(0).lognormal(0, 5, 10_000).astype(np.float32)
    written = numbers(values).to_pylist()
    assert [float(text) for text in written] == [float(f"{value:.3g}") for value in values.tolist()]


@SETTINGS
@given(st.lists(st.none() | st.text(), max_size=10))
def test_texts_are_quoted(values: list[str | None]) -> None:
    assert [json.loads(text) for text in texts(pa.array(values, pa.string())).to_pylist()] == values


def test_records_are_put_together() -> None:
    edges = np.array([0, 2, 2, 3])
    counts = integers(np.array([4, 5, 6]))
    made = records({"name": '"a"', "on": integers(np.array([True, False, True])), "counts": lists(counts, edges)})
    assert [json.loads(text) for text in made.to_pylist()] == [
        {"name": "a", "on": True, "counts": [4, 5]},
        {"name": "a", "on": False, "counts": []},
        {"name": "a", "on": True, "counts": [6]},
    ]
    assert joined(counts, edges).to_pylist() == ["4,5", "", "6"]
    assert tuples("1", counts).to_pylist() == ["[1,4]", "[1,5]", "[1,6]"]
