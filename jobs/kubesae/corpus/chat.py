"""Conversations as the text that a model was trained on: rendered by its tokenizer's own chat template.

    renderer = Renderer(tokenizer)
    encoded = tokenizer.encode_marked([renderer.render(messages, "row 3")])

Special tokens of the template are special tokens. What a message says is data: where it spells one, it is marked, and
encoded as characters. A trace of reasoning stays in, although many templates cut it out of an assistant's answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kubesae.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kubesae.corpus.tokenizer import Tokenizer

Messages = tuple[dict[str, str], ...]
"""messages in order, each a `role` and its `content`"""

# Unicode keeps these from ever being text.
BEGIN_QUOTE, END_QUOTE, _HOLE = "\ufdd0", "\ufdd1", "\ufdd2"
_MARKS = dict.fromkeys(map(ord, (BEGIN_QUOTE, END_QUOTE, _HOLE)), "\ufffd")

_ROLES = {"human": "user", "gpt": "assistant"}  # as ShareGPT calls them
_TRACE = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
_TRACE_TOKENS = ("<think>", "</think>")

# Some templates print today's date: then the same rows would be other tokens tomorrow. A macro hides the function that
# transformers gives them; the day is the one that Llama's template falls back to.
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}"
    "{{ {'%Y-%m-%d': '2024-07-26', '%B %d, %Y': 'July 26, 2024'}.get(format, '26 Jul 2024') }}"
    "{%- endmacro -%}"
)


def read_messages(row: Mapping[str, Any], columns: Sequence[str], where: str) -> Messages:
    """Return the conversation in a row; `where` names the row in errors.

    Args:
        row: its columns, of which `columns` are there.
        columns: one that holds a list of messages ({role, content} or {from, value}), or those of a question and its
            answer.
        where: the row, in errors.

    Raises:
        ConfigError: there is no message, or something else than text in one.

    """
    if len(columns) == 1:
        said = row[columns[0]]
        if isinstance(said, dict) and all(isinstance(part, list) for part in said.values()):
            said = [dict(zip(said, parts, strict=True)) for parts in zip(*said.values(), strict=True)]
    else:
        question, answer = columns
        said = [{"role": "user", "content": row[question]}, {"role": "assistant", "content": row[answer]}]
    messages = []
    for message in said if isinstance(said, list) else []:
        found = message if isinstance(message, dict) else {}
        role, content = found.get("role", found.get("from")), found.get("content", found.get("value"))
        if not isinstance(role, str) or not isinstance(content, str):
            raise ConfigError(
                f"{where}: column {columns[0]!r} holds {str(message)[:80]!r}, which is no message: {{role, content}} "
                "or {from, value}, both text. Set the corpus's `messages`."
            )
        messages.append({"role": _ROLES.get(role, role), "content": content})
    if not messages:
        raise ConfigError(
            f"{where}: column {columns[0]!r} holds no messages ({str(said)[:80]!r}). Set the corpus's `messages`, or "
            "leave such rows out."
        )
    return tuple(messages)


class Renderer:
    """Renders conversations by a tokenizer's chat template, always to the same text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take the template. Raises ConfigError when the tokenizer has none."""
        self._tokenizer = tokenizer
        self.template = tokenizer.chat_template
        """as the tokenizer has it"""
        special = [text for text in tokenizer.special_texts if text not in _TRACE_TOKENS]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")

    def render(self, messages: Messages, where: str) -> str:
        """Return the text of a conversation, with marks around what only spells a special token.

        The template is given the trace of the last answer apart, as newer ones want it, then within the answer. Where
        it loses the trace both times it is given a mark instead, and the trace is put where the mark comes out.

        Raises:
            ConfigError: the template refuses the messages; `where` names them.

        """
        quoted = [message | {"content": self._quote(message["content"])} for message in messages]
        *before, last = quoted
        trace = _TRACE.fullmatch(last["content"]) if last["role"] == "assistant" else None
        if trace is None:
            return self._apply(quoted, where)
        thought, answer = trace.groups()
        apart = last | {"content": answer, "reasoning_content": thought}
        for form in (apart, last):
            text = self._apply([*before, form], where)
            if thought.strip() in text:
                return text
        return self._apply([*before, last | {"content": _HOLE}], where).replace(_HOLE, last["content"])

    def prompt(self, messages: Messages, where: str) -> str:
        """Return the text of a conversation up to where the assistant's answer begins, marked and refused as above."""
        quoted = [message | {"content": self._quote(message["content"])} for message in messages]
        return self._apply(quoted, where, answer=True)

    def _quote(self, content: str) -> str:
        return self._special.sub(lambda found: f"{BEGIN_QUOTE}{found[0]}{END_QUOTE}", content.translate(_MARKS))

    def _apply(self, messages: list[dict[str, str]], where: str, *, answer: bool = False) -> str:
        try:
            return self._tokenizer.apply_chat_template(messages, _FIXED_DATE + self.template, answer=answer)
        except Exception as error:  # a template is a program: it raises what it likes
            roles = ", ".join(message["role"] for message in messages)
            raise ConfigError(
                f"{where}: the tokenizer's chat template refuses its messages ({roles}): {error}. Leave such rows out, "
                "or name other columns in `messages`."
            ) from error


def split_marked(text: str) -> list[str]:
    """Return the pieces of a rendered text: every second one is what only spells a special token."""
    return re.split(f"{BEGIN_QUOTE}(.*?){END_QUOTE}", text, flags=re.DOTALL)
