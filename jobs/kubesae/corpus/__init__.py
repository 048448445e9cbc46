"""Documents -> tokens -> packed contexts."""

from kubesae.corpus.manifest import (
    CorpusInfo,
    Request,
    ShardInfo,
    TokenizerInfo,
    TokensManifest,
    read_manifest,
    require_manifest,
)
from kubesae.corpus.packing import Packer, Piece
from kubesae.corpus.sources import HubDataset, LocalFiles, TextDocument, open_source
from kubesae.corpus.tokenizer import Encoded, Tokenizer, Vocabulary
from kubesae.corpus.tokens import ShardTokens, read_shard_tokens

__all__ = [
    "CorpusInfo",
    "Encoded",
    "HubDataset",
    "LocalFiles",
    "Packer",
    "Piece",
    "Request",
    "ShardInfo",
    "ShardTokens",
    "TextDocument",
    "Tokenizer",
    "TokenizerInfo",
    "TokensManifest",
    "Vocabulary",
    "open_source",
    "read_manifest",
    "read_shard_tokens",
    "require_manifest",
]
