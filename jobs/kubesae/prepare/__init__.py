"""Corpora -> token ids of every shard."""

from kubesae.prepare.restore import restore_tokens
from kubesae.prepare.run import Prepared, check_vocabulary, prepare, prepare_share

__all__ = ["Prepared", "check_vocabulary", "prepare", "prepare_share", "restore_tokens"]
