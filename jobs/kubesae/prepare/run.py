"""Prepare: corpora -> packed token ids of every shard, once, on CPUs, before any GPU runs.

    kubesae prepare experiment.yaml
    kubesae prepare experiment.yaml --index 0 --of 3    # one of three workers, in any order

1. Tokenise units of each corpus until its pool is full (`fill`, `segments`). 2. Deal the contexts to shards (`deal`,
`spill`): whoever finds all segments there. 3. Write the manifest. From then on the content of every part is a pure
function of the data identity: no dataset, tokenizer or hub is needed while GPUs are paid for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubesae.corpus import CorpusInfo, Request, ShardInfo, Tokenizer, TokensManifest, read_manifest
from kubesae.errors import ConfigError
from kubesae.experiment import canonical_json, parse_json_object, sha256_hex, validate
from kubesae.ledger import Plan, keys
from kubesae.prepare.deal import Layout, deal, split_by_weight
from kubesae.prepare.fill import Filling
from kubesae.prepare.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.corpus import TokenizerInfo
    from kubesae.experiment import Experiment
    from kubesae.prepare.fill import Filled
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
    index: int = 0,
    of: int = 1,
) -> Prepared | None:
    """Tokenise, pack and deal, unless it has been done.

    Args:
        experiment: the experiment.
        store: the data store.
        vocab_size: gives the model's vocabulary size, so that a tokenizer that does not fit is refused here.
        say: called with a line of progress.
        index: number of this worker, from 0.
        of: workers that share the units.

    Returns:
        None when this worker has done its share and others have not: whoever is last deals.

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
    filled = []
    for corpus, count in zip(experiment.corpora, wanted, strict=True):
        filling = Filling.open(experiment, store, tokenizer, info, corpus, count, shared=of > 1)
        filling.work(index, of, say)
        filled.append(filling)
    pools = [found for filling in filled if (found := filling.result()) is not None]
    if len(pools) < len(filled):
        return None
    manifest = deal_tokens(store, request, info, plan, pools, wanted, say)
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


def deal_tokens(
    store: Store,
    request: Request,
    info: TokenizerInfo,
    plan: Plan,
    filled: Sequence[Filled],
    wanted: Sequence[int],
    say: Callable[[str], None],
) -> TokensManifest:
    """Write the token files of every shard that does not have its own yet; return the manifest, which is not written.

    Args:
        store: the data store, which holds the segments.
        request: what is prepared.
        info: the tokenizer.
        plan: the plan.
        filled: the pools.
        wanted: contexts of each.
        say: called with a line of progress.

    """
    pools = [one.pool for one in filled]
    layout = Layout(plan, deal(pools, wanted, request.seed))
    made_of = sha256_hex(
        canonical_json(
            {
                "request": request.model_dump(mode="json"),
                "tokenizer": info.sha256,
                "corpora": [[one.pool.sizes, one.about] for one in filled],
            }
        )
    )
    shards = _dealt(store, plan, made_of)
    missing = [shard for shard in range(plan.num_shards) if shard not in shards]
    if shards:
        say(f"{len(shards)} of {plan.num_shards} shards were dealt before")
    with Spill(store, layout, pools, missing) as spill:
        for shard in missing:
            made = spill.files(shard)
            for key, data in made.files.items():
                store.put(key, data)
            marker = {"made_of": made_of, "info": made.info.model_dump(mode="json")}
            store.put(keys.dealt(shard), canonical_json(marker))
            shards[shard] = made.info
            say(f"Shard {shard}: {made.info.tokens:,} tokens dealt")
    corpora = tuple(
        CorpusInfo(
            name=one.pool.corpus,
            pool_contexts=one.pool.contexts,
            contexts=wanted[number],
            documents=spill.documents.get(one.pool.corpus, 0),
            tokens=layout.tokens(number),
            **one.about,
        )
        for number, one in enumerate(filled)
    )
    return TokensManifest(
        request=request, tokenizer=info, corpora=corpora, shards=tuple(shards[shard] for shard in sorted(shards))
    )


def _dealt(store: Store, plan: Plan, made_of: str) -> dict[int, ShardInfo]:
    """Return the shards whose files are there, made of the same: by a listing and a small object each."""
    there = store.list("tokens/")
    found = {}
    for shard in range(plan.num_shards):
        if {keys.dealt(shard), keys.tokens(shard), keys.documents(shard)} <= there.keys():
            where = f"{store.url}/{keys.dealt(shard)}"
            marker = parse_json_object(store.read(keys.dealt(shard)), where)
            if marker.get("made_of") == made_of:
                found[shard] = validate(ShardInfo, marker["info"], where)
    return found
