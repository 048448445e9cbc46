"""Claim a prefix: write the data identity create-only, or refuse when other data lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.corpus import Request, require_manifest
from kubesae.errors import ConfigError
from kubesae.experiment import DataIdentity
from kubesae.ledger import keys, read_identity

if TYPE_CHECKING:
    from kubesae.corpus import TokensManifest
    from kubesae.experiment import Experiment
    from kubesae.model import ModelSource
    from kubesae.store import Store


def check_experiment(experiment: Experiment, store: Store) -> tuple[TokensManifest, DataIdentity | None]:
    """Compare an experiment with what lies at its prefix, without its model: tokens, and identity if there is one.

    Raises:
        ConfigError: there are no tokens yet.
        IdentityError: they, or the activations, belong to another experiment.

    """
    manifest = require_manifest(store)
    manifest.check_request(Request.of(experiment), store.url)
    stored = read_identity(store)
    if stored is not None:
        DataIdentity.of(experiment, manifest.sha256, stored.model_revision, stored.d_model).check_same(
            stored, store.url
        )
    return manifest, stored


def claim(experiment: Experiment, store: Store, manifest: TokensManifest, source: ModelSource) -> DataIdentity:
    """Write `activations/identity.json`, or check that what is there is the same.

    Raises:
        ConfigError: tokenizer and model disagree.
        IdentityError: other data lies at the prefix.

    """
    if manifest.tokenizer.size > source.vocab_size:
        raise ConfigError(
            f"Tokenizer and model disagree: the tokens go up to id {manifest.tokenizer.size - 1}, but "
            f"{experiment.model!r} has {source.vocab_size} embeddings. Give the model that the tokens are for."
        )
    identity = DataIdentity.of(experiment, manifest.sha256, source.revision, source.d_model)
    if not store.create(keys.IDENTITY, identity.to_json()):
        stored = read_identity(store)
        if stored is not None:
            identity.check_same(stored, store.url)
    return identity
