"""What an account says: planned = stored + missing tokens, of the whole and of each shard, corpus and document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kubesae.experiment import Section


class Count(Section):
    """Tokens. `planned` is always `stored` + `missing`."""

    planned: int = Field(description="tokens of the plan")
    stored: int = Field(description="tokens whose activations are committed")
    missing: int = Field(description="tokens that are still to be collected")
    flagged: int | None = Field(description="of the stored ones, those with a flag; null: flags were not read")


class ShardCount(Count):
    """Tokens of a shard."""

    shard: int = Field(description="shard")


class CorpusCount(Count):
    """Tokens of a corpus, BOS and separators included."""

    corpus: str | None = Field(description="corpus; null: a cut last context of which only BOS is left")
    documents: int = Field(description="documents that they come from")


class DocumentCount(Count):
    """Tokens of a document, its separator included."""

    corpus: str | None = Field(description="corpus")
    document: str | None = Field(description="document; null: BOS, which belongs to none")


class LayerFlags(Section):
    """Flags of the stored rows of a layer, as the commit records count them. A row may have several."""

    layer: int = Field(description="captured layer")
    first_position: int = Field(description="rows at the first position of a context")
    special_token: int = Field(description="rows of special tokens")
    norm_outlier: int = Field(description="rows whose norm is an outlier")


class Account(Section):
    """The whole account: what `kubesae ledger --json` prints."""

    format: Literal[1] = Field(1, description="version of this object")
    data: str = Field(description="the data prefix")
    total: Count = Field(description="all tokens")
    shards: tuple[ShardCount, ...] = Field(description="by shard")
    corpora: tuple[CorpusCount, ...] = Field(description="by corpus, in the order of the experiment")
    documents: tuple[DocumentCount, ...] | None = Field(description="by document, largest first; null: not asked for")
    flags: tuple[LayerFlags, ...] = Field(description="flags of each layer")
    flags_layer: int | None = Field(description="layer whose flags `flagged` counts")
