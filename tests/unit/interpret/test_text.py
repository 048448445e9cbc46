from __future__ import annotations

import pytest

from kubesae.interpret.text import marked, split_text, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", "a b"),
        ("a\n\tb\r", "a⏎⇥b␍"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202eabc", "\\u202eabc"),
        ("é漢🙂", "é漢🙂"),
    ],
)
def test_text_is_one_line_that_no_terminal_acts_on(text, shown):
    assert visible(text) == shown


class Bytes:
    """Tokens are bytes of UTF-8."""

    def text(self, ids):
        return bytes(ids).decode(errors="replace")


class Stripped:
    """Drops a space at the beginning of what it decodes, as sentencepiece tokenizers do."""

    def text(self, ids):
        return "".join(f" w{i}" for i in ids)[1:]


def test_spaces_between_tokens_survive():
    assert split_text(Stripped(), [1, 2], 3, [4]) == ("w1 w2", " w3", " w4")
    assert split_text(Stripped(), [], 3, [4]) == ("", "w3", " w4")


def test_a_part_of_a_character_is_shown_as_such():
    a, b = "é".encode()
    assert split_text(Bytes(), [97], a, [b, 98]) == ("a", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}b")
    assert split_text(Bytes(), [97, a], b, [98]) == (
        "a\N{REPLACEMENT CHARACTER}",
        "\N{REPLACEMENT CHARACTER}",
        "b",
    )


def test_the_token_is_marked():
    assert marked(Bytes(), b"x = ", b"1"[0], b"\n") == "x = »1«⏎"
