"""The model's tokenizer: ids of documents with the character each token begins at, and its identity.

Text is data: a document that spells `<|endoftext|>` is encoded as those characters, not as the special token.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubesae.corpus.manifest import TokenizerInfo
from kubesae.errors import ConfigError, DamagedError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        """Load the tokenizer of a hub model or local folder. Raises ConfigError when there is none."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from transformers import AutoTokenizer  # noqa: PLC0415 - seconds to import

        try:
            inner = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"Cannot load the tokenizer of {model!r}: {error} Give a hub id that can be reached or a local folder "
                "with the tokenizer's files."
            ) from error
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

    def __init__(self, definition: bytes) -> None:
        """Take `Tokenizer.definition`."""
        value = json.loads(definition)
        self._fast: Any = None
        if "model" in value and "version" in value:
            from tokenizers import Tokenizer as FastTokenizer  # noqa: PLC0415 - an extra

            self._fast = FastTokenizer.from_str(definition.decode())
        else:
            self._tokens = {number: token for token, number in value.items()}

    @classmethod
    def read(cls, store: Store, manifest: TokensManifest) -> Vocabulary:
        """Read the vocabulary of prepared tokens. Raises DamagedError when it is not the manifest's."""
        definition = store.read(keys.TOKENIZER)
        if sha256_hex(definition) != manifest.tokenizer.sha256:
            raise DamagedError(f"{store.url}/{keys.TOKENIZER} is not what tokens/manifest.json says. Restore it.")
        return cls(definition)

    def text(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """Text of `ids`, special tokens included; what is no whole character shows as U+FFFD."""
        if self._fast is not None:
            return str(self._fast.decode([int(i) for i in ids], skip_special_tokens=False))
        return "".join(self._tokens.get(int(i), "") for i in ids)


def _added_special(inner: Any) -> list[int]:
    return [i for i, token in inner.added_tokens_decoder.items() if token.special]


def _char_of(encoding: Any) -> Callable[[int], int]:
    def char(token: int) -> int:
        span = encoding.token_to_chars(token)
        return -1 if span is None else int(span[0])

    return char
