"""Prepare: corpora -> packed token ids of every shard, once, on CPUs, before any GPU runs.

    kubesae prepare experiment.yaml

1. Tokenise units of each corpus until its pool is full (`segments`). 2. Deal the contexts to shards (`deal`). 3. Write
the manifest. From then on the content of every part is a pure function of the data identity: no dataset, tokenizer or
hub is needed while GPUs are paid for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from kubesae.corpus import CorpusInfo, Request, Tokenizer, TokensManifest, open_source, read_manifest
from kubesae.errors import ConfigError
from kubesae.ledger import Plan, keys
from kubesae.prepare.deal import Pool, deal, shard_files, split_by_weight
from kubesae.prepare.segments import Settings, make_segment

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.corpus import TokenizerInfo
    from kubesae.experiment import Corpus, Experiment
    from kubesae.store import Store


@dataclass(frozen=True, slots=True)
class Prepared:
    """The tokens' manifest, and whether they were there already."""

    manifest: TokensManifest
    existed: bool


def prepare(
    experiment: Experiment,
    store: Store,
    *,
    vocab_size: Callable[[], int] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Tokenise, pack and deal, unless it has been done.

    Args:
        experiment: the experiment.
        store: the data store.
        vocab_size: gives the model's vocabulary size, so that a tokenizer that does not fit is refused here.
        say: called with a line of progress.

    Raises:
        IdentityError: tokens of other settings are stored there.
        ConfigError: a corpus is missing, empty or too small, or tokenizer and model disagree.

    """
    request = Request.of(experiment)
    manifest = read_manifest(store)
    if manifest is not None:
        manifest.check_request(request, store.url)
        return Prepared(manifest, existed=True)
    tokenizer = Tokenizer.load(
        experiment.model, experiment.model_revision, trust_remote_code=experiment.trust_remote_code
    )
    info = tokenizer.info
    if vocab_size is not None:
        check_vocabulary(info, vocab_size(), experiment.model)
    plan = Plan.of(experiment)
    total = sum(plan.contexts(shard) for shard in range(plan.num_shards))
    wanted = split_by_weight(total, [corpus.weight for corpus in experiment.corpora])
    pools, revisions = [], []
    for corpus, count in zip(experiment.corpora, wanted, strict=True):
        pool, revision = _fill(experiment, store, tokenizer, info, corpus, count, say)
        pools.append(pool)
        revisions.append(revision)
    manifest = _write(experiment, store, info, plan, pools, revisions, wanted, request, say)
    store.put(keys.TOKENIZER, tokenizer.definition)
    store.put(keys.TOKENS_MANIFEST, manifest.to_json())
    return Prepared(manifest, existed=False)


def check_vocabulary(info: TokenizerInfo, vocab_size: int, model: str) -> None:
    """Raise ConfigError when the tokenizer can make ids that the model has no embedding for."""
    if info.size > vocab_size:
        raise ConfigError(
            f"Tokenizer and model disagree: the tokenizer of {model!r} makes token ids up to {info.size - 1}, but the "
            f"model has {vocab_size} embeddings. Give a model folder whose tokenizer belongs to its weights."
        )


def _fill(
    experiment: Experiment,
    store: Store,
    tokenizer: Tokenizer,
    info: TokenizerInfo,
    corpus: Corpus,
    count: int,
    say: Callable[[str], None],
) -> tuple[Pool, str]:
    """Tokenise units of `corpus` until `count` contexts times its pool factor are there, or it ends."""
    source = open_source(corpus, experiment.seed)
    revision = source.revision()
    goal = math.ceil(count * corpus.pool)
    settings = Settings(
        tokenizer=info.sha256,
        revision=revision,
        context=experiment.context,
        bos=info.bos if experiment.bos else None,
        separator=info.eos if experiment.separator else None,
        limit=goal,
    )
    sizes: list[int] = []
    for unit in range(source.units):
        if sum(sizes) >= goal:
            break
        sizes.append(make_segment(store, tokenizer, source, corpus.name, unit, settings))
        say(f"Corpus {corpus.name}: {sum(sizes) * experiment.context:,} tokens, {unit + 1} of {source.units} units")
    if sum(sizes) < count:
        raise ConfigError(
            f"Corpus {corpus.name} is too small: {corpus.source!r} gives {sum(sizes)} contexts of "
            f"{experiment.context} tokens ({sum(sizes) * experiment.context:,} tokens), {count} are needed "
            f"({count * experiment.context:,}). Lower `tokens`, the corpus's `weight` or `context`, or add text."
        )
    return Pool(corpus.name, tuple(sizes)), revision


def _write(
    experiment: Experiment,
    store: Store,
    info: TokenizerInfo,
    plan: Plan,
    pools: list[Pool],
    revisions: list[str],
    wanted: list[int],
    request: Request,
    say: Callable[[str], None],
) -> TokensManifest:
    order = deal(pools, wanted, experiment.seed)
    counts = [plan.contexts(shard) for shard in range(plan.num_shards)]
    edges = np.cumsum([0, *counts])
    rows = np.full(len(order), plan.context)
    rows[edges[1:] - 1] -= np.array(counts) * plan.context - [plan.quota(shard) for shard in range(plan.num_shards)]
    shards, tables = [], []
    for shard in range(plan.num_shards):
        made = shard_files(store, plan, shard, order[edges[shard] : edges[shard + 1]], pools)
        for key, data in made.files.items():
            store.put(key, data)
        shards.append(made.info)
        tables.append(made.documents.select(["corpus", "document"]))
        say(f"Shard {shard}: {made.info.tokens:,} tokens dealt")
    documents = _documents(tables)
    corpora = tuple(
        CorpusInfo(
            name=pool.corpus,
            revision=revision,
            pool_contexts=pool.contexts,
            contexts=wanted[number],
            documents=documents.get(pool.corpus, 0),
            tokens=int(rows[order[:, 0] == number].sum()),
        )
        for number, (pool, revision) in enumerate(zip(pools, revisions, strict=True))
    )
    return TokensManifest(request=request, tokenizer=info, corpora=corpora, shards=tuple(shards))


def _documents(tables: list[pa.Table]) -> dict[str, int]:
    """Distinct documents used of each corpus that is used."""
    groups = pa.concat_tables(tables).group_by("corpus").aggregate([("document", "count_distinct")])
    return {row["corpus"]: row["document_count_distinct"] for row in groups.to_pylist()}
