"""Corpora -> token ids of every shard."""

from kubesae.prepare.restore import restore_tokens
from kubesae.prepare.run import Prepared, check_vocabulary, plan_of, prepare

__all__ = ["Prepared", "check_vocabulary", "plan_of", "prepare", "restore_tokens"]
