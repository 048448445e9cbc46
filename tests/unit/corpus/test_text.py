from __future__ import annotations

import pytest

from kubesae.corpus import marked, split_text, visible


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


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_piece_of_a_character_is_marked_with_all_of_it(at):
    ids = "a✓b".encode()
    assert split_text(Bytes(), ids[:at], ids[at], ids[at + 1 :]) == ("a", "✓", "b")
    assert split_text(Bytes(), b"", ids[1], ids[2:]) == ("", "✓", "b")


def test_bytes_that_are_no_character_are_shown_as_such():
    assert split_text(Bytes(), b"a", 0xFF, b"b") == ("a", "\N{REPLACEMENT CHARACTER}", "b")
    assert split_text(Bytes(), b"a", "é".encode()[0], b"") == ("a", "\N{REPLACEMENT CHARACTER}", "")


def test_the_token_is_marked():
    assert marked(Bytes(), b"x = ", b"1"[0], b"\n") == "x = »1«⏎"
