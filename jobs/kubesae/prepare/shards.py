"""Fourth step of prepare: write each shard's token files once, and say what they are.

After a shard's files a small object says what they are and what they were made of. A `prepare` that was killed then
knows the shards that are done by a listing and these objects: none is read, and none is made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubesae.corpus import CorpusInfo, ShardInfo, TokensManifest
from kubesae.experiment import canonical_json, parse_json_object, sha256_hex, validate
from kubesae.ledger import keys
from kubesae.prepare.deal import Layout, deal
from kubesae.prepare.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.corpus import Request, TokenizerInfo
    from kubesae.ledger import Plan
    from kubesae.prepare.fill import Filled
    from kubesae.store import Store


def deal_tokens(
    store: Store,
    plan: Plan,
    request: Request,
    info: TokenizerInfo,
    filled: Sequence[Filled],
    say: Callable[[str], None],
) -> TokensManifest:
    """Write the token files of every shard that does not have its own yet; return the manifest, which is not written.

    Args:
        store: the data store, which holds the segments.
        plan: the plan.
        request: what is prepared.
        info: the tokenizer.
        filled: the corpora's pools, and how much of each is dealt.
        say: called with a line of progress.

    """
    made_of = _made_of(request, info, filled)
    shards = _dealt(store, plan, made_of)
    missing = [shard for shard in range(plan.num_shards) if shard not in shards]
    if shards:
        say(f"{len(shards)} of {plan.num_shards} shards were dealt before")
    pools = [corpus.pool for corpus in filled]
    layout = Layout(plan, deal(pools, [corpus.wanted for corpus in filled], request.seed))
    with Spill(store, layout, pools, missing) as spill:
        for shard in missing:
            made = spill.files(shard)
            for key, data in made.files.items():
                store.put(key, data)
            shards[shard] = made.info
            store.put(
                keys.dealt(shard), canonical_json({"made_of": made_of, "info": made.info.model_dump(mode="json")})
            )
            say(f"Shard {shard}: {made.info.tokens:,} tokens dealt")
    corpora = tuple(
        CorpusInfo(
            name=corpus.pool.corpus,
            pool_contexts=corpus.pool.contexts,
            contexts=corpus.wanted,
            documents=spill.documents.get(corpus.pool.corpus, 0),
            tokens=layout.tokens(number),
            **corpus.about,
        )
        for number, corpus in enumerate(filled)
    )
    in_order = tuple(shards[shard] for shard in range(plan.num_shards))
    return TokensManifest(request=request, tokenizer=info, corpora=corpora, shards=in_order)


def _made_of(request: Request, info: TokenizerInfo, filled: Sequence[Filled]) -> str:
    """Return a hash of all that decides the bytes of the shards."""
    corpora = [[corpus.pool.sizes, corpus.wanted, corpus.about] for corpus in filled]
    values = {"request": request.model_dump(mode="json"), "tokenizer": info.sha256, "corpora": corpora}
    return sha256_hex(canonical_json(values))


def _dealt(store: Store, plan: Plan, made_of: str) -> dict[int, ShardInfo]:
    """Return the shards whose files are there, made of the same: by a listing and a small object each."""
    there = {key for prefix in keys.DEALT for key in store.list(prefix)}
    found = {}
    for shard in range(plan.num_shards):
        key = keys.dealt(shard)
        if {key, keys.tokens(shard), keys.documents(shard)} <= there:
            marker = parse_json_object(store.read(key), f"{store.url}/{key}")
            if marker.get("made_of") == made_of:
                found[shard] = validate(ShardInfo, marker["info"], f"{store.url}/{key}")
    return found
