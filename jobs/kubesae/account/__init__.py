"""Every token of the plan, accounted for."""

from kubesae.account.counts import Account, CorpusCount, Count, DocumentCount, LayerFlags, ShardCount
from kubesae.account.pieces import Pieces, pieces_of
from kubesae.account.run import account

__all__ = [
    "Account",
    "CorpusCount",
    "Count",
    "DocumentCount",
    "LayerFlags",
    "Pieces",
    "ShardCount",
    "account",
    "pieces_of",
]
