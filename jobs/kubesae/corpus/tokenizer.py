"""The model's tokenizer: ids of documents with the character each token begins at, and its identity.

Text is data: a document that spells `<|endoftext|>` is encoded as those characters, not as the special token.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from kubesae.corpus.chat import split_marked
from kubesae.corpus.manifest import TokenizerInfo
from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.hub import loading
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kubesae.corpus.manifest import TokensManifest
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class Encoded:
    """One document's tokens.

    Attributes:
        ids: uint32 [tokens].
        char: character of the document at which token `i` begins; -1 where the tokenizer cannot say.

    """

    ids: npt.NDArray[np.uint32]
    char: Callable[[int], int]

    def bare(self, begin: int | None, end: int | None) -> Encoded:
        """Return this without the token `begin` at its beginning and `end` at its end: packing adds its own."""
        start = int(len(self.ids) > 0 and begin is not None and self.ids[0] == begin)
        stop = len(self.ids) - int(len(self.ids) > start and end is not None and self.ids[-1] == end)
        return Encoded(self.ids[start:stop], lambda token: self.char(token + start))


class Tokenizer:
    """A transformers tokenizer, seen as this project needs it."""

    def __init__(self, inner: Any) -> None:
        """Wrap `inner`, a `PreTrainedTokenizerBase`."""
        self._inner = inner
        self._fast = inner.backend_tokenizer if inner.is_fast else None
        if self._fast is not None:
            self._fast.encode_special_tokens = True
            self._fast.no_truncation()
            self._fast.no_padding()

    @classmethod
    def load(cls, model: str, revision: str | None, *, trust_remote_code: bool = False) -> Tokenizer:
        """Load the tokenizer of a hub model or local folder.

        Raises:
            ConfigError: there is none.
            HubError: the hub does not answer.

        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from transformers import AutoTokenizer  # noqa: PLC0415 - seconds to import

        local = Path(model).is_dir()
        with loading(
            f"the tokenizer of model {model!r}" + ("" if local else " (there is no such local folder)"),
            "Give the id of a model that the hub has and gives you (HF_TOKEN), or a local folder with the tokenizer's "
            "files.",
            repository=None if local else model,
            revision=revision,
        ):
            inner = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
        return cls(inner)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode documents, without special tokens; on all cores when the tokenizer is a fast one."""
        if self._fast is not None:
            return [
                Encoded(np.asarray(e.ids, np.uint32), _char_of(e))
                for e in self._fast.encode_batch(list(texts), add_special_tokens=False)
            ]
        ids = self._inner(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [Encoded(np.asarray(i, np.uint32), lambda _: -1) for i in ids]

    def encode_marked(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode texts of a `Renderer`: special tokens count, but between marks, which are no part of the text."""
        pieces = [split_marked(text) for text in texts]
        quoted = iter(self.encode([piece for parts in pieces for piece in parts[1::2]]))
        spoken = iter(self._encode_special([piece for parts in pieces for piece in parts[::2]]))
        return [
            _join(parts, [next(quoted if number % 2 else spoken) for number in range(len(parts))]) for parts in pieces
        ]

    def _encode_special(self, texts: Sequence[str]) -> list[Encoded]:
        if self._fast is not None:
            self._fast.encode_special_tokens = False
            try:
                return self.encode(texts)
            finally:
                self._fast.encode_special_tokens = True
        return [
            Encoded(np.asarray(self._inner.encode(text, add_special_tokens=False), np.uint32), lambda _: -1)
            for text in texts
        ]

    @property
    def chat_template(self) -> str:
        """The tokenizer's chat template. Raises ConfigError when it has none, or several without a default."""
        try:
            return str(self._inner.get_chat_template())
        except ValueError as error:
            raise ConfigError(
                "A corpus has `messages`, and the model's tokenizer has no chat template to render them by "
                f"({str(error).partition('.')[0]}). Take a model that was trained on conversations, or put a "
                "chat_template.jinja beside the tokenizer's files."
            ) from error

    def apply_chat_template(self, messages: list[dict[str, str]], template: str, *, answer: bool = False) -> str:
        """Render messages, in a sandbox, with `answer` up to where one begins. Raises whatever the template does."""
        return str(
            self._inner.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=answer
            )
        )

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be rendered."""
        return bool(getattr(self._inner, "chat_template", None))

    def text(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """Text of `ids`, without special tokens."""
        numbers = [int(i) for i in ids]
        return str(self._inner.decode(numbers, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def pieces(self, ids: Sequence[int] | npt.NDArray[Any]) -> list[str]:
        """Text of each of `ids` by itself, special tokens included; what is no whole character shows as U+FFFD."""
        return [str(self._inner.decode([int(i)], clean_up_tokenization_spaces=False)) for i in ids]

    @property
    def special_texts(self) -> list[str]:
        """How the special tokens are spelled."""
        return [str(text) for text in self._inner.convert_ids_to_tokens(list(self.info.special))]

    @property
    def definition(self) -> bytes:
        """What is stored of the tokenizer: all of it, or of one without a fast version its vocabulary."""
        if self._fast is not None:
            return str(self._fast.to_str()).encode()
        return canonical_json(self._inner.get_vocab())

    @property
    def info(self) -> TokenizerInfo:
        """What the tokens manifest records of this tokenizer."""
        vocabulary = self._inner.get_vocab()
        return TokenizerInfo(
            sha256=sha256_hex(self.definition),
            size=max(vocabulary.values()) + 1,
            bos=self._inner.bos_token_id,
            eos=self._inner.eos_token_id,
            special=tuple(sorted(set(self._inner.all_special_ids) | set(_added_special(self._inner)))),
        )


class Vocabulary:
    """Turns token ids into text, from the definition that `prepare` stored: no model, no hub."""

    def __init__(self, definition: bytes, ids: Iterable[int] | None = None) -> None:
        """Take `Tokenizer.definition`; with `ids`, only these are known, and it takes a fraction of the time."""
        value = from_json(definition) if ids is None else _parse_quickly(definition)
        self._fast: Any = None
        if "model" in value and "version" in value:
            from tokenizers import Tokenizer as FastTokenizer  # noqa: PLC0415 - an extra

            known = None if ids is None else _only(value, {int(i) for i in ids})
            self._fast = FastTokenizer.from_str(definition.decode() if known is None else json.dumps(known))
        else:
            self._tokens = {number: token for token, number in value.items()}

    @classmethod
    def read(cls, store: Store, manifest: TokensManifest) -> Vocabulary:
        """Read the vocabulary of prepared tokens. Raises DamagedError when it is not the manifest's."""
        return _vocabulary(check_definition(store.read(keys.TOKENIZER), store, manifest))

    def text(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """Text of `ids`, special tokens included; what is no whole character shows as U+FFFD."""
        if self._fast is not None:
            return str(self._fast.decode([int(i) for i in ids], skip_special_tokens=False))
        return "".join(self._tokens.get(int(i), "") for i in ids)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        r"""Text of each token by itself, as it reads after another one: ` the` keeps its space.

        Bytes that are no whole character are written `\xe2`. Special tokens are included.
        """
        if self._fast is None:
            return [self._tokens.get(int(i), "") for i in ids]
        before = next(([i] for i in map(self._fast.token_to_id, ("a", "▁a", "Ġa")) if i is not None), [])
        wanted = [int(i) for i in ids]
        start = len(self._fast.decode(before, skip_special_tokens=False))
        texts = self._fast.decode_batch([[*before, i] for i in wanted], skip_special_tokens=False)
        return [self._piece(i, text[start:]) for i, text in zip(wanted, texts, strict=True)]

    def _piece(self, token: int, text: str) -> str:
        """Return a token's text, or its bytes where these are no text."""
        name = self._fast.id_to_token(token) if "\ufffd" in text else None
        data = None if name is None else bytes_of_token(name)
        return text if data is None else data.decode("utf-8", "backslashreplace")


@lru_cache(maxsize=1)
def _vocabulary(definition: bytes) -> Vocabulary:
    """Return the vocabulary that was asked for last, which a program asks for again and again, or another one."""
    return Vocabulary(definition)


def bytes_of_token(name: str) -> bytes | None:
    """Bytes of a vocabulary's entry, of byte fallback (`<0xE2>`) or of a byte-level one (`âĢ`); None: it is neither."""
    if match := _BYTE.fullmatch(name):
        return bytes([int(match[1], 16)])
    try:
        return bytes(_BYTE_LEVEL[character] for character in name)
    except KeyError:
        return None


def _byte_level() -> dict[str, int]:
    """Characters by which byte-level vocabularies spell bytes: printable ones as they are, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE = re.compile(r"<0x([0-9A-F]{2})>", re.ASCII)
_BYTE_LEVEL = _byte_level()


def check_definition(definition: bytes, store: Store, manifest: TokensManifest) -> bytes:
    """Return the tokenizer's definition that was read from `store`, or raise DamagedError if it is another's."""
    if sha256_hex(definition) != manifest.tokenizer.sha256:
        raise DamagedError(f"{store.url}/{keys.TOKENIZER} is not what tokens/manifest.json says. Restore it.")
    return definition


def _parse_quickly(definition: bytes) -> dict[str, Any]:
    """Parse a definition without the merges, more than half of it, where these come last, as `tokenizers` writes them.

    In a string the quotes of `,"merges":[` would be escaped, so it can only be the key.
    """
    head, found, _ = definition.partition(b',"merges":[')
    if found:
        try:
            value: dict[str, Any] = from_json(head + b"}}")
        except ValueError:
            return dict(from_json(definition))
        if {"added_tokens", "decoder"} <= value.keys():
            return value
    return dict(from_json(definition))


def _only(definition: dict[str, Any], ids: set[int]) -> dict[str, Any] | None:
    """Return the definition of a tokenizer that decodes `ids` as this one does and knows no others; None: cannot be.

    Decoding looks up each id's token and hands them to the decoder. So the decoder is kept, and of the model, with its
    merges and its search structures, nothing but the few tokens.
    """
    vocabulary = definition["model"]["vocab"]
    if isinstance(vocabulary, dict):
        tokens = {number: token for token, number in vocabulary.items() if number in ids}
    else:  # a Unigram model lists token and score by id
        tokens = {number: vocabulary[number][0] for number in ids if number < len(vocabulary)}
    tokens |= {added["id"]: added["content"] for added in definition["added_tokens"] if added["id"] in ids}
    words = {token: number for number, token in tokens.items()}
    if len(words) < len(tokens):  # two ids of one token
        return None
    model = {"type": "WordLevel", "vocab": words, "unk_token": ""}
    return {"version": definition["version"], "decoder": definition.get("decoder"), "model": model}


def _added_special(inner: Any) -> list[int]:
    return [i for i, token in inner.added_tokens_decoder.items() if token.special]


def _join(texts: Sequence[str], parts: Sequence[Encoded]) -> Encoded:
    """Join the encodings of texts that follow each other in one document."""
    if len(parts) == 1:
        return parts[0]
    first_tokens = np.cumsum([0, *(len(part.ids) for part in parts)])
    first_chars = np.cumsum([0, *map(len, texts)])

    def char(token: int) -> int:
        part = int(np.searchsorted(first_tokens, token, side="right")) - 1
        within = parts[part].char(token - int(first_tokens[part]))
        return -1 if within < 0 else int(first_chars[part]) + within

    return Encoded(np.concatenate([part.ids for part in parts]), char)


def _char_of(encoding: Any) -> Callable[[int], int]:
    def char(token: int) -> int:
        span = encoding.token_to_chars(token)
        return -1 if span is None else int(span[0])

    return char
