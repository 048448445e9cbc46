"""Documents -> tokens -> packed contexts."""

from kubesae.corpus.chat import Renderer
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
from kubesae.corpus.text import marked, split_text, visible
from kubesae.corpus.tokenizer import Encoded, Tokenizer, Vocabulary, check_definition
from kubesae.corpus.tokens import ShardTokens, read_documents, read_shard_tokens, read_token_ids, read_token_range

__all__ = [
    "CorpusInfo",
    "Encoded",
    "HubDataset",
    "LocalFiles",
    "Packer",
    "Piece",
    "Renderer",
    "Request",
    "ShardInfo",
    "ShardTokens",
    "TextDocument",
    "Tokenizer",
    "TokenizerInfo",
    "TokensManifest",
    "Vocabulary",
    "check_definition",
    "marked",
    "open_source",
    "read_documents",
    "read_manifest",
    "read_shard_tokens",
    "read_token_ids",
    "read_token_range",
    "require_manifest",
    "split_text",
    "visible",
]
