"""YAML as people write it: numbers are numbers, words are words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.errors import ConfigError
from kubesae.experiment import parse_yaml


def read(text: str) -> Any:
    return parse_yaml(f"x: {text}", "test")["x"]


@given(st.integers(-(10**15), 10**15))
def test_integers_are_read_exactly_with_underscores_or_without(value: int) -> None:
    for text in (str(value), f"{value:_}"):
        assert read(text) == value
        assert type(read(text)) is int


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_exactly_as_python_writes_them(value: float) -> None:
    assert read(repr(value)) == value
    assert read(f"{value:.17e}") == value


@given(st.integers(1, 9), st.integers(0, 15))
def test_powers_of_ten_are_whole_numbers(digit: int, exponent: int) -> None:
    for text in (f"{digit}e{exponent}", f"{digit}E+{exponent}", f"{digit}.0e{exponent}"):
        assert read(text) == digit * 10**exponent
        assert type(read(text)) is int


@given(st.text(alphabet="0123456789.eE+-_", min_size=1, max_size=8))
def test_whatever_looks_like_a_number_never_fails(text: str) -> None:
    try:
        value = read(text)
    except ConfigError:
        return
    assert value is None or isinstance(value, (int, float, str, list))


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-4", 0.0003), ("1e9", 10**9), ("250_000_000", 250_000_000), ("2.5e-3", 0.0025), (".5", 0.5), ("1.", 1)],
)
def test_numbers_that_plain_yaml_reads_as_strings(text: str, value: float) -> None:
    assert read(text) == value
    assert not isinstance(read(text), str)


WORDS = "on off yes no Yes y n 12:30 190:20:30 1:1 0x10 0b1 2024-01-01 1.2. 1.2.3 v1 e9 1e _1 . .inf .nan 1e- 3.x"


@pytest.mark.parametrize("text", WORDS.split())
def test_words_dates_and_clock_times_stay_strings(text: str) -> None:
    assert read(text) == text


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("null", None), ("~", None), ("", None)])
def test_booleans_and_null(text: str, value: object) -> None:
    assert read(text) is value


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "b: {c: 1, d: 2, c: 3}", "1: x\n1: y", "a: 1\n'a': 2", "l: [{a: 1, a: 1}]"]
)
def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        parse_yaml(text, "test")


def test_merge_keys_work_and_may_be_overridden() -> None:
    text = "base: &base {lr: 1, k: 2}\nsae:\n  - {<<: *base, k: 3}\n  - <<: *base\n"
    assert parse_yaml(text, "test")["sae"] == [{"lr": 1, "k": 3}, {"lr": 1, "k": 2}]


@pytest.mark.parametrize("text", ["? [a]\n: b", "[" * 3000, "a: *b", "a: b: c", "\x00", "!!python/object:os.system {}"])
def test_what_is_not_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the file is not valid YAML"):
        parse_yaml(text, "the file")
