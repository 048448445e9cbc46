"""`tokens/manifest.json`: what was tokenised, how it was packed, and the hash of every shard's token ids.

The manifest is written last, so tokens exist when it does. Its SHA-256 is part of the data identity. `request` is what
the user asked for, `corpora` and `tokenizer` what that resolved to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import ConfigError, IdentityError, MissingError
from kubesae.experiment import (
    Corpus,
    Section,
    canonical_json,
    difference,
    parse_json_object,
    public_name,
    sha256_hex,
    validate,
)
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.experiment import Experiment
    from kubesae.store import Store


class Request(Section):
    """The fields of an experiment that decide its tokens; of a local path only its last part, so no machine shows."""

    model: str
    model_revision: str | None
    corpora: tuple[Corpus, ...]
    tokens: int
    num_shards: int
    context: int
    bos: bool
    separator: bool
    seed: int

    @classmethod
    def of(cls, experiment: Experiment) -> Request:
        """Return the request that `experiment` makes."""
        values = {name: getattr(experiment, name) for name in cls.model_fields}
        values["model"] = public_name(experiment.model)
        values["corpora"] = tuple(
            corpus.model_copy(update={"source": public_name(corpus.source)}) for corpus in experiment.corpora
        )
        return cls(**values)


class TokenizerInfo(Section):
    """The tokenizer that was used."""

    sha256: str = Field(description="SHA-256 of the tokenizer's definition")
    size: int = Field(description="one more than the largest token id")
    bos: int | None = Field(description="token that begins a context, if any")
    eos: int | None = Field(description="token that ends a document, if any")
    special: tuple[int, ...] = Field(description="special token ids, ascending")


def _is_none(value: object) -> bool:
    """Leave out what is not there: the manifests of data that has none of it keep their hashes."""
    return value is None


class CorpusInfo(Section):
    """What was used of one corpus."""

    name: str
    revision: str = Field(description="hub commit, or SHA-256 over the files")
    pool_contexts: int = Field(description="contexts that were tokenised")
    contexts: int = Field(description="contexts that were dealt")
    documents: int = Field(description="documents that the dealt contexts come from")
    tokens: int = Field(description="tokens that were dealt, BOS and separators included")
    chat_template: str | None = Field(
        None, exclude_if=_is_none, description="SHA-256 of the chat template that its messages were rendered by"
    )
    duplicates: int | None = Field(
        None, exclude_if=_is_none, description="documents that were dropped because their text came before (dedup)"
    )
    duplicate_tokens: int | None = Field(None, exclude_if=_is_none, description="tokens of these documents")


class ShardInfo(Section):
    """The tokens of one shard."""

    tokens: int
    sha256: str = Field(description="SHA-256 of the token ids, little-endian uint32")
    documents_sha256: str = Field(description="SHA-256 of the documents file")


class TokensManifest(Section):
    """The whole manifest."""

    format: Literal[1] = 1
    request: Request
    tokenizer: TokenizerInfo
    corpora: tuple[CorpusInfo, ...]
    shards: tuple[ShardInfo, ...]

    def to_json(self) -> bytes:
        """Return the bytes of `tokens/manifest.json`."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def sha256(self) -> str:
        """SHA-256 of `to_json()`."""
        return sha256_hex(self.to_json())

    def check_request(self, request: Request, where: str) -> None:
        """Raise IdentityError, naming the fields, when these tokens were not made for `request`."""
        mine, theirs = request.model_dump(mode="json"), self.request.model_dump(mode="json")
        lines = difference(theirs, mine)
        if lines:
            raise IdentityError(
                f"The tokens at {where} were made for another experiment; nothing was touched. They differ in\n"
                + "\n".join(lines)
                + "\nSet `data` to another prefix, or set these fields back to what is stored."
            )


def read_manifest(store: Store) -> TokensManifest | None:
    """Return the manifest of the tokens in `store`; None when nothing has been prepared there."""
    try:
        data = store.read(keys.TOKENS_MANIFEST)
    except MissingError:
        return None
    where = f"{store.url}/{keys.TOKENS_MANIFEST}"
    return validate(TokensManifest, parse_json_object(data, where), where)


def require_manifest(store: Store) -> TokensManifest:
    """Return the manifest. Raises ConfigError when nothing has been prepared."""
    manifest = read_manifest(store)
    if manifest is None:
        raise ConfigError(f"There are no tokens at {store.url} yet. Run `kubesae prepare` first.")
    return manifest
