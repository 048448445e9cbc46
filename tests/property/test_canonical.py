"""Canonical JSON: the same values give the same bytes, whoever wrote them in whatever order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.experiment import canonical_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@given(VALUES)
def test_parsing_and_writing_again_gives_the_same_bytes(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data
    assert b"\n" not in data


@given(st.dictionaries(st.text(), SCALARS), st.randoms())
def test_the_order_of_fields_does_not_matter(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_the_bytes_are_pinned() -> None:
    value = {"b": [1, 2.5, 1e-05, True, None], "a": {"é": "x y"}, "10": "\n"}
    assert canonical_json(value) == '{"10":"\\n","a":{"é":"x y"},"b":[1,2.5,1e-05,true,null]}'.encode()
