"""Data identity: the hash that says whether two runs collect the same bytes.

`activations/identity.json` is the canonical JSON of `DataIdentity`; its SHA-256 is the identity that every commit
record carries. What may change between runs over the same data (SAE settings, batch sizes, parallelism, hardware) is
not in it; nor is time, a host, a local path or a library version.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from kubesae.errors import ConfigError, IdentityError
from kubesae.experiment.canonical import canonical_json, sha256_hex
from kubesae.experiment.spec import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.experiment.spec import Experiment


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a line for each field in which what is stored differs from what is asked for here."""
    return [f"  {name}: {there[name]!r} there, {here[name]!r} here" for name in here if here[name] != there[name]]


class DataIdentity(Section):
    """Everything that decides the stored bytes, up to the numerics record of each part."""

    format: Literal[1] = Field(1, description="version of the stored format")
    tokens_manifest: str = Field(description="SHA-256 of tokens/manifest.json")
    model: str = Field(description="name of the model")
    model_revision: str = Field(description="hub commit, or SHA-256 over config, tokenizer and weights")
    model_dtype: str = Field(description="dtype the model computes in")
    attention_across_documents: bool = Field(description="whether tokens see earlier documents of their context")
    layers: tuple[int, ...] = Field(description="captured layers")
    d_model: int = Field(description="width of the residual stream")
    storage: str = Field(description="dtype activations are stored in")
    tokens: int = Field(description="tokens in all")
    num_shards: int = Field(description="shards")
    context: int = Field(description="tokens of a context")
    contexts_per_part: int = Field(description="contexts of a part")
    contexts_per_block: int = Field(description="contexts of a block")

    @classmethod
    def of(cls, experiment: Experiment, tokens_manifest: str, model_revision: str, d_model: int) -> DataIdentity:
        """Return the data identity of an experiment over the tokens whose manifest has this SHA-256."""
        return cls(
            tokens_manifest=tokens_manifest,
            model=public_name(experiment.model),
            model_revision=model_revision,
            model_dtype=experiment.model_dtype,
            attention_across_documents=experiment.attention_across_documents,
            layers=experiment.layers,
            d_model=d_model,
            storage=experiment.storage,
            tokens=experiment.tokens,
            num_shards=experiment.num_shards,
            context=experiment.context,
            contexts_per_part=experiment.contexts_per_part,
            contexts_per_block=experiment.contexts_per_block,
        )

    def to_json(self) -> bytes:
        """Return the bytes of `activations/identity.json`."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def sha256(self) -> str:
        """The data identity: SHA-256 of `to_json()`."""
        return sha256_hex(self.to_json())

    def check_layer(self, layer: int, where: str) -> None:
        """Raise ConfigError when the data, which lie at `where`, do not hold this layer."""
        if layer not in self.layers:
            raise ConfigError(
                f"Layer {layer} was not collected at {where}: it has layers {list(self.layers)}. Choose one."
            )

    def check_same(self, stored: DataIdentity, where: str) -> None:
        """Raise IdentityError naming the fields in which `stored` (at `where`) differs from this identity."""
        mine, theirs = self.model_dump(mode="json"), stored.model_dump(mode="json")
        lines = difference(theirs, mine)
        if lines:
            raise IdentityError(
                f"The data at {where} belongs to another experiment; nothing was touched. It differs in\n"
                + "\n".join(lines)
                + "\nSet `data` to another prefix, or set these fields back to what is stored."
            )


# What a file of documents ends with, and no hub id.
_FILES = (".txt", ".md", ".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".py")


def is_path(source: str) -> bool:
    """Whether a model or corpus is meant as a local path, there or not, or a glob; else it is a hub id."""
    looks_so = source.startswith((".", "/", "~")) or source.endswith(_FILES) or source.count("/") > 1
    return looks_so or any(c in source for c in "*?[") or Path(source).exists()


def public_name(source: str) -> str:
    """Return a hub id as it is, and of a local path its last part: what may be stored."""
    return Path(source).expanduser().name if is_path(source) else source
