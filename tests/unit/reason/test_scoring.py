"""Answers: found in text as the data sets and models write them, and compared by value."""

from __future__ import annotations

from fractions import Fraction

import pytest

from kubesae.reason.scoring import is_right, same, stated_answer, value_of

SAME = [
    ("\\frac{1}{2}", "0.5"),
    ("\\dfrac12", "1/2"),
    ("-\\frac{3}{4}", "-0.75"),
    ("3\\frac{1}{2}", "7/2"),
    ("1{,}000", "1000"),
    ("1,234", "1234"),
    ("70,\\!000", "70000"),
    ("$18", "18"),
    ("\\$32,348", "32348"),
    ("€5", "5"),
    ("18 dollars", "18"),
    ("50\\%", "50"),
    ("90^\\circ", "90"),
    ("5\\text{ cm}", "5"),
    ("3 m^2", "3"),
    ("20.00", "20"),
    ("x = 5", "5"),
    ("\\text{(A)}", "(A)"),
    ("\\left(3, \\frac{\\pi}{2}\\right)", "(3,\\pi/2)"),
    ("\u22124", "-4"),
    ("**7**", "7"),
]
DIFFERENT = [
    ("12", "-12"),
    ("2\\sqrt{3}", "2\\sqrt{2}"),
    ("x^2", "x^3"),
    ("6+9i", "6+9"),
    ("6+9i", "6"),
    ("2x", "2"),
    ("1/0", "1"),
    ("1,2", "12"),
    ("(1,234)", "1234"),
    ("2 apples and 3 pears", "3"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_these_are_the_same(one, other):
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_these_are_not(one, other):
    assert not same(one, other)
    assert not same(other, one)


def test_values_are_exact():
    assert value_of("0.1") + value_of("0.2") == value_of("3/10") == Fraction(3, 10)
    assert value_of("\\sqrt{2}") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 4 + 5 = 9.\n#### 9", "9"),
        ("\\boxed{3} was wrong: \\boxed{\\frac{1}{\\sqrt{2}}}, as I said 5 times", "\\frac{1}{\\sqrt{2}}"),
        ("The answer is 42. I checked 3 times.", "42"),
        ("So the answer is 12 + 5 = 17 apples.", "17"),
        ("The answer is x = 5. Then 2x = 10.", "5"),
        ("I get 3, then 1,200 eggs.", "1,200"),
        ("It never ends: \\boxed{12", "12"),
        ("I do not know.", None),
    ],
)
def test_the_answer_of_a_text(text, answer):
    assert stated_answer(text) == answer


def test_a_solution_is_scored_by_its_last_box():
    assert is_right("First \\boxed{7}, no: \\boxed{8}", "8")
    assert not is_right("First \\boxed{8}, no: \\boxed{7}", "8")
    assert not is_right("", "8")
