"""How texts are marked, and how answers are read."""

from __future__ import annotations

import pytest

from kubesae.corpus.tokenizer import Vocabulary
from kubesae.interpret.explain.prompts import (
    detection_prompt,
    explanation_prompt,
    highlighted,
    read_explanation,
    read_list,
)
from kubesae.interpret.explain.scores import Score


class Words:
    """Words of one letter; tokens 10 and 11 are half a character each."""

    def text(self, ids):
        text = ""
        for number, i in enumerate(ids):
            if i == 10:
                text += "é" if list(ids[number + 1 : number + 2]) == [11] else "\ufffd"
            elif i != 11:
                text += " " + "abcdefghij"[i] if i < 9 else "\n"
        return text


@pytest.mark.parametrize(
    ("ids", "marks", "text"),
    [
        ([0, 1, 2], [False, False, False], " a b c"),
        ([0, 1, 2], [True, True, False], "<< a b>> c"),
        ([0, 1, 2], [True, False, True], "<< a>> b<< c>>"),
        ([9, 1], [True, False], "<<⏎>> b"),
        ([0, 10, 11, 2], [False, False, True, False], " a<<é>> c"),  # the token's part of it is all of it
        ([0, 10, 11, 2], [False, True, True, False], " a<<é>> c"),
        ([4], [True], "<< e>>"),
    ],
)
def test_marked_tokens_stand_between_marks(ids, marks, text) -> None:
    assert highlighted(Words(), ids, marks) == text


def test_a_real_vocabulary_keeps_its_text() -> None:
    from kubesae.fixture.run import tokenizer_definition

    vocabulary = Vocabulary(tokenizer_definition())
    ids = [5, 6, 7, 8]
    text = highlighted(vocabulary, ids, [False, True, False, True])
    assert text.replace("<<", "").replace(">>", "") == vocabulary.text(ids)
    assert text.count("<<") == 2


def test_prompts_number_their_texts() -> None:
    system, user = explanation_prompt([" a<< b>>", " c"])
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"] == "Text 1:  a<< b>>\nText 2:  c"
    assert detection_prompt("cats", [" a"])[1]["content"] == "Explanation: cats\n\nText 1:  a"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Explanation: cats", "cats"),
        ("I think.\nExplanation: dogs\nExplanation:  cats\n and\tmore ", "cats and more"),
        ("cats", "cats"),
        ("Explanation: \x1b[31mcats", "\\x1b[31mcats"),
        ("", ""),
        ("Explanation:", ""),
    ],
)
def test_an_explanation_is_one_line(answer: str, found: str) -> None:
    assert read_explanation(answer) == found
    assert len(read_explanation("x" * 10_000)) == 500


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("[1, 0, 1]", [True, False, True]),
        ("Sure! [1,0, 0]\n", [True, False, False]),
        ("[1, 0] no: [0 0 1]", [False, False, True]),
        ("[1, 0]", None),
        ("[1, 0, 2]", None),
        ("1, 0, 1", None),
        ("", None),
    ],
)
def test_a_list_has_to_have_all_answers(answer: str, found: list[bool] | None) -> None:
    assert read_list(answer, 3) == found


def test_scores_are_balanced() -> None:
    judged = [(True, True)] * 3 + [(True, False)] + [(False, False)] + [(False, None)] * 5
    assert Score.of(judged) == Score((3 / 4 + 1) / 2, 4, 1, 5)
    assert Score.of([(True, True)] * 9 + [(False, True)]).value == 0.5
    assert Score.of([(True, True)]) == Score(None, 1, 0, 0)
    assert Score.of([]) == Score(None, 0, 0, 0)
    assert Score.of([(True, None), (False, None)]) == Score(None, 0, 0, 2)
