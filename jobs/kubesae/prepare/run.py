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

from kubesae.corpus import Request, Tokenizer, read_manifest
from kubesae.errors import ConfigError, StoreError
from kubesae.ledger import Plan, keys
from kubesae.prepare.deal import split_by_weight
from kubesae.prepare.fill import Filling
from kubesae.prepare.shards import deal_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.corpus import TokenizerInfo, TokensManifest
    from kubesae.experiment import Experiment
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
    prepared = prepare_share(experiment, store, 0, 1, vocab_size=vocab_size, say=say)
    if prepared is None:
        raise StoreError(f"Segments that were written to {store.url} are not there any more. Prepare again.")
    return prepared


def prepare_share(
    experiment: Experiment,
    store: Store,
    index: int,
    of: int,
    *,
    vocab_size: Callable[[], int] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Prepared | None:
    """Tokenise what is worker `index`'s of `of`; deal if all is tokenised. Arguments and errors as `prepare`.

    Returns:
        None when others have not done their shares: whoever is last deals.

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
    fillings = _fillings(experiment, store, plan, tokenizer, shared=of > 1)
    for filling in fillings:
        filling.work(index, of, say)
    filled = [found for filling in fillings if (found := filling.result()) is not None]
    if len(filled) < len(fillings):
        return None
    manifest = deal_tokens(store, plan, request, info, filled, say)
    store.put(keys.TOKENIZER, tokenizer.definition)
    store.put(keys.TOKENS_MANIFEST, manifest.to_json())
    return Prepared(manifest, existed=False)


def _fillings(experiment: Experiment, store: Store, plan: Plan, tokenizer: Tokenizer, *, shared: bool) -> list[Filling]:
    total = sum(plan.contexts(shard) for shard in range(plan.num_shards))
    wanted = split_by_weight(total, [corpus.weight for corpus in experiment.corpora])
    return [
        Filling.open(experiment, store, tokenizer, corpus, count, shared=shared)
        for corpus, count in zip(experiment.corpora, wanted, strict=True)
    ]


def check_vocabulary(info: TokenizerInfo, vocab_size: int, model: str) -> None:
    """Raise ConfigError when the tokenizer can make ids that the model has no embedding for."""
    if info.size > vocab_size:
        raise ConfigError(
            f"Tokenizer and model disagree: the tokenizer of {model!r} makes token ids up to {info.size - 1}, but the "
            f"model has {vocab_size} embeddings. Give a model folder whose tokenizer belongs to its weights."
        )
