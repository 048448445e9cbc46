"""Themes on hand-made examples: what counts as one, and which feature is shown for it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from kubesae.interpret.console import theme_lines
from kubesae.interpret.themes import find_themes

WORDS = ["<s>", " import", " os", "(", " ", "\n", " Import", ".", "self", " re"]
IMPORT, OS, OPEN, SPACE, LINE, CAPITAL, DOT, SELF, RE = range(1, 10)


class Words:
    """A vocabulary of WORDS, and a number for every other token."""

    def text(self, ids):
        return "".join(WORDS[i] if i < len(WORDS) else f" {i}" for i in ids)


def feature(number, tokens, *, before=None, after=None, documents=20):
    """Twenty examples of a feature; contexts differ unless `before` says otherwise."""
    return [
        {
            "feature": number,
            "rank": rank + 1,
            "token": token,
            "corpus": "code",
            "document": f"{rank % documents}.py",
            "before": before[rank] if before else [100 + rank, 50 + rank],
            "after": after[rank] if after else [200 + rank],
        }
        for rank, token in enumerate(tokens)
    ]


def themes(*features):
    return find_themes(pa.Table.from_pylist([row for rows in features for row in rows]), Words(), (0,))


def others(count):
    return list(range(300, 300 + count))


def test_a_token_that_16_of_20_share_is_a_theme():
    (theme,) = themes(feature(7, [*others(4), *[IMPORT] * 16]))
    assert (theme.feature, theme.text, theme.tokens) == (7, " import", (IMPORT,))
    assert (theme.share, theme.documents) == (0.8, 16)
    assert theme.context == " 104 54» import« 204"
    assert themes(feature(7, [*others(5), *[IMPORT] * 15])) == []


@pytest.mark.parametrize("token", [OPEN, SPACE, LINE])
def test_white_space_and_punctuation_are_none(token):
    assert themes(feature(7, [token] * 20)) == []
    assert themes(feature(7, [token] * 20, before=[[100 + i, DOT] for i in range(20)])) == []


def test_punctuation_counts_with_the_word_before_or_after_it():
    (before,) = themes(feature(7, [DOT] * 20, before=[[100 + i, SELF] for i in range(20)]))
    assert (before.text, before.tokens) == ("self.", (SELF, DOT))
    (after,) = themes(feature(7, [OPEN] * 20, after=[[SELF, 100 + i] for i in range(20)]))
    assert (after.text, after.tokens) == ("(self", (OPEN, SELF))


def test_special_tokens_make_no_bigram():
    assert themes(feature(7, [DOT] * 20, before=[[0]] * 20)) == []


def test_ten_documents_are_needed():
    assert themes(feature(7, [IMPORT] * 20, documents=9)) == []
    assert themes(feature(7, [IMPORT] * 20, documents=10))[0].documents == 10


def test_copied_text_counts_as_one_document():
    copies = [[1, 2, 3]] * 11 + [[100 + i] for i in range(9)]
    (theme,) = themes(feature(7, [IMPORT] * 20, before=copies))
    assert theme.documents == 10
    assert themes(feature(7, [IMPORT] * 20, before=[[1, 2, 3]] * 12 + [[100 + i] for i in range(8)])) == []


def test_fewer_than_twenty_examples_are_too_few():
    assert themes(feature(7, [IMPORT] * 19)) == []


def test_the_best_feature_stands_for_a_theme_and_case_makes_no_other():
    found = themes(
        feature(3, [*others(2), *[IMPORT] * 18]),
        feature(4, [IMPORT] * 20, documents=15),
        feature(5, [CAPITAL] * 20, documents=18),
        feature(6, [RE] * 20, documents=18),
        feature(8, [RE] * 20, documents=18),
    )
    assert [(theme.feature, theme.text) for theme in found] == [(5, " Import"), (6, " re")]


def test_rows_beyond_the_top_twenty_do_not_count():
    rows = feature(7, [IMPORT] * 20) + feature(7, others(20))
    assert themes(rows)[0].share == 1.0


def test_lines():
    found = themes(feature(7, [IMPORT] * 20), feature(9, [DOT] * 20, before=[[100 + i, SELF] for i in range(20)]))
    lines = list(theme_lines(found, 1))
    assert lines[0].startswith("2 different tokens and bigrams are shared by at least 80% of the top 20 contexts")
    assert lines[1:] == [
        " 1. Feature 7: token ' import', 100% of 20 contexts, 20 documents",
        "       100 50» import« 200",
    ]
    assert list(theme_lines([], 10)) == [lines[0].replace("2 different", "0 different")[:-1] + "."]
