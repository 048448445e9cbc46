"""Make token files again that are damaged or gone, to the bytes that manifest and identity name, or not at all.

With the manifest whole, the shard is dealt again from the stored segments: neither sources nor tokenizer are needed.
Else the experiment is prepared again from its sources, aside, and what is wanted is taken from there.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from kubesae.corpus import Tokenizer, read_manifest
from kubesae.errors import DamagedError, KubesaeError, MissingError, StoreError
from kubesae.experiment import parse_json_object
from kubesae.ledger import Plan, keys, require_identity
from kubesae.prepare.deal import Layout, Pool, deal
from kubesae.prepare.run import prepare
from kubesae.prepare.spill import Spill
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.corpus import TokensManifest
    from kubesae.experiment import DataIdentity, Experiment
    from kubesae.store import Store


def restore_tokens(experiment: Experiment, store: Store, files: Sequence[str]) -> None:
    """Make the token files with these keys again.

    Raises:
        DamagedError: what can be made of segments and sources is not what was there; what could not be made was left
            as it is.

    """
    identity = require_identity(store)
    manifest = _whole_manifest(store, identity)
    wanted = set(files)
    if manifest is not None:
        _load_again(experiment, store, manifest, wanted)
        _deal_again(store, manifest, Plan.of(identity), wanted)
    if wanted:
        _prepare_again(experiment, store, identity, wanted)


def _whole_manifest(store: Store, identity: DataIdentity) -> TokensManifest | None:
    try:
        manifest = read_manifest(store)
    except StoreError:
        raise
    except KubesaeError:  # no JSON, or other fields
        return None
    return manifest if manifest is not None and manifest.sha256 == identity.tokens_manifest else None


def _load_again(experiment: Experiment, store: Store, manifest: TokensManifest, wanted: set[str]) -> None:
    """Write the tokenizer, if it is wanted and still the one that the manifest names, and take it out."""
    if keys.TOKENIZER in wanted:
        tokenizer = Tokenizer.load(
            experiment.model, experiment.model_revision, trust_remote_code=experiment.trust_remote_code
        )
        if tokenizer.info.sha256 == manifest.tokenizer.sha256:
            store.put(keys.TOKENIZER, tokenizer.definition)
            wanted.discard(keys.TOKENIZER)


def _deal_again(store: Store, manifest: TokensManifest, plan: Plan, wanted: set[str]) -> None:
    """Write what the segments give of `wanted`, as far as it is what the manifest names, and take it out."""
    shards = [s for s in range(plan.num_shards) if wanted & {keys.tokens(s), keys.documents(s)}]
    if not shards:
        return
    try:
        pools = [_pool(store, corpus.name, corpus.pool_contexts) for corpus in manifest.corpora]
        order = deal(pools, [corpus.contexts for corpus in manifest.corpora], manifest.request.seed)
        with Spill(store, Layout(plan, order), pools, shards) as spill:
            for shard in shards:
                made = spill.files(shard)
                if made.info == manifest.shards[shard]:
                    for key, data in made.files.items():
                        if key in wanted:
                            store.put(key, data)
                    wanted.difference_update(made.files)
    except (DamagedError, IndexError, KeyError, ValueError):  # segments are gone or others: the sources may be there
        return


def _pool(store: Store, corpus: str, contexts: int) -> Pool:
    """Return the pool of a corpus from the markers of its segments. Raises DamagedError when it is not whole."""
    sizes: list[int] = []
    while sum(sizes) < contexts:
        key = f"{keys.segment(corpus, len(sizes))}.json"
        try:
            sizes.append(int(parse_json_object(store.read(key), key)["contexts"]))
        except (MissingError, KeyError, ValueError) as error:
            raise DamagedError(f"{key} is no segment.") from error
    return Pool(corpus, tuple(sizes))


def _prepare_again(experiment: Experiment, store: Store, identity: DataIdentity, wanted: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        aside = open_store(folder)
        try:
            made = prepare(experiment, aside).manifest.sha256
        except KubesaeError as error:
            raise DamagedError(f"{_cannot(store, wanted)} the sources cannot be prepared again: {error}") from error
        if made != identity.tokens_manifest:
            raise DamagedError(
                f"{_cannot(store, wanted)} corpus, tokenizer or a library are not what they were: prepared again, the "
                f"manifest has SHA-256 {made[:12]} and not {identity.tokens_manifest[:12]}. Restore the file from a "
                "copy of the prefix, or collect under another prefix."
            )
        for key in sorted(wanted):
            store.put(key, aside.read(key))


def _cannot(store: Store, wanted: set[str]) -> str:
    return f"{store.url}/{min(wanted)} is damaged and cannot be made again; it was left as it is:"
