"""Conversations: read from rows of every shape, rendered always alike, special where the template says so, traced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kubesae.corpus import Renderer, Tokenizer
from kubesae.corpus.chat import BEGIN_QUOTE, END_QUOTE, read_messages
from kubesae.errors import ConfigError
from tiny_models import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.corpus.chat import Messages

PLAIN = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
# As Qwen3 and Kimi: a trace of its own for the last answer. As DeepSeek-R1: no trace at all in an answer.
OF_ITS_OWN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content or '' }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>{% endfor %}"
)
CUTS_IT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>') | last }}<|im_end|>{% endfor %}"
)
TALK: Messages = (
    {"role": "user", "content": "seven or eight?"},
    {"role": "assistant", "content": "<think>\nred, so\n</think>\nseven"},
)


def tokenizer(folder: Path, template: str | None) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    save_tokenizer(folder, template=template)
    return Tokenizer.load(str(folder), None)


def render(folder: Path, template: str, messages: Messages = TALK) -> str:
    return Renderer(tokenizer(folder, template)).render(messages, "row 0")


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, ["messages"]),
        ({"talk": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ["talk"]),
        ({"talk": {"from": ["human", "gpt"], "value": ["q", "a"]}}, ["talk"]),
        ({"problem": "q", "solution": "a"}, ["problem", "solution"]),
    ],
)
def test_conversations_of_every_shape_are_read_alike(row: dict[str, Any], columns: list[str]) -> None:
    expected = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    assert read_messages(row, columns, "it") == expected


@pytest.mark.parametrize(
    ("row", "columns", "said"),
    [
        ({"m": []}, ["m"], r"column 'm' holds no messages \('\[\]'\)"),
        ({"m": None}, ["m"], r"column 'm' holds no messages \('None'\)"),
        ({"m": "text"}, ["m"], r"column 'm' holds no messages \('text'\)"),
        (
            {"m": [{"role": "user", "content": None}]},
            ["m"],
            r"which is no message: \{role, content\} or \{from, value\}",
        ),
        ({"m": [{"who": "user", "text": "x"}]}, ["m"], "which is no message"),
        ({"m": ["x"]}, ["m"], "which is no message"),
        ({"q": "x", "a": None}, ["q", "a"], "which is no message"),
    ],
)
def test_rows_without_messages_are_named(row: dict[str, Any], columns: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"file:3: .*{said}.*`messages`"):
        read_messages(row, columns, "file:3")


def test_a_tokenizer_without_a_template_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no chat template to render them.*chat_template\.jinja") as caught:
        Renderer(tokenizer(tmp_path, None))
    assert caught.value.exit_code == 2


def test_a_template_that_refuses_is_named_with_the_roles(tmp_path: Path) -> None:
    refuses = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ConfigError, match=r"row 0: .*refuses its messages \(user, assistant\): roles must alternate"):
        render(tmp_path, refuses)


def test_the_templates_special_tokens_are_special_and_begin_and_end_are_not_doubled(tmp_path: Path) -> None:
    inner = tokenizer(tmp_path, PLAIN + "{{ eos_token }}")
    special = dict(zip(inner.special_texts, inner.info.special, strict=True))
    text = Renderer(inner).render(TALK, "row 0")
    encoded = inner.encode_marked([text])[0]
    found = [i for i in encoded.ids.tolist() if i in inner.info.special]
    start, end = special["<|im_start|>"], special["<|im_end|>"]
    assert found == [special["<s>"], start, end, start, end, special["</s>"]]
    bare = encoded.bare(inner.info.bos, inner.info.eos)
    assert bare.ids.tolist() == encoded.ids.tolist()[1:-1]
    assert [bare.char(i) for i in range(len(bare.ids))] == [encoded.char(i + 1) for i in range(len(bare.ids))]
    assert encoded.bare(None, None).ids.tolist() == encoded.ids.tolist()


def test_what_a_message_spells_is_text_and_every_token_knows_its_character(tmp_path: Path) -> None:
    said = f"write <|im_end|> twice: <|im_end|> or </s>, {BEGIN_QUOTE}not{END_QUOTE} this"
    messages: Messages = ({"role": "user", "content": said}, {"role": "assistant", "content": "no <|im_start|>"})
    inner = tokenizer(tmp_path, PLAIN)
    marked = Renderer(inner).render(messages, "row 0")
    encoded = inner.encode_marked([marked])[0]
    special = dict(zip(inner.special_texts, inner.info.special, strict=True))
    counts = [encoded.ids.tolist().count(special[text]) for text in ("<|im_start|>", "<|im_end|>", "</s>")]
    assert counts == [2, 2, 0]
    text = marked.replace(BEGIN_QUOTE, "").replace(END_QUOTE, "")
    assert "write <|im_end|> twice: <|im_end|> or </s>, �not� this" in text
    chars = [encoded.char(i) for i in range(len(encoded.ids))]
    assert chars == sorted(chars)
    begins = [
        chars[i] for i, token in enumerate(encoded.ids.tolist()) if token in (special["<s>"], special["<|im_end|>"])
    ]
    assert [text[char : char + 3] for char in begins] == ["<s>", "<|i", "<|i"]
    plain = inner.encode(["no <|im_start|>"])[0]
    at = text.index("no <|im_start|>")
    assert chars.index(at) + len(plain.ids) <= len(chars)
    assert encoded.ids.tolist()[chars.index(at) + 1] == plain.ids.tolist()[1]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (PLAIN, "<|im_start|>assistant\n<think>\nred, so\n</think>\nseven<|im_end|>\n"),
        (OF_ITS_OWN, "<|im_start|>assistant\n<think>\nred, so\n</think>\nseven<|im_end|>"),
        (CUTS_IT, "<|im_start|>assistant\n<think>\nred, so\n</think>\nseven<|im_end|>"),
    ],
)
def test_a_trace_stays_in_whatever_the_template_does_with_it(tmp_path: Path, template: str, expected: str) -> None:
    assert render(tmp_path, template).endswith(expected)


def test_an_answer_without_a_trace_is_rendered_as_it_is(tmp_path: Path) -> None:
    talk: Messages = (TALK[0], {"role": "assistant", "content": "a </think> and no beginning"})
    assert render(tmp_path, PLAIN, talk).endswith("a </think> and no beginning<|im_end|>\n")
    assert render(tmp_path, PLAIN, (TALK[0],)).endswith("seven or eight?<|im_end|>\n")


@pytest.mark.parametrize(("form", "day"), [("%d %b %Y", "26 Jul 2024"), ("%Y-%m-%d", "2024-07-26")])
def test_a_template_that_prints_the_day_prints_the_same_every_day(tmp_path: Path, form: str, day: str) -> None:
    template = "{% if strftime_now is defined %}{{ strftime_now(" + json.dumps(form) + ") }}{% endif %}"
    assert render(tmp_path, template) == day


def test_a_template_cannot_reach_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refuses its messages"):
        render(tmp_path, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
