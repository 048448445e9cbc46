"""`kubesae prepare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import check_share, experiment_options, overrides, resolve, share_options

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.prepare import Prepared

FIELDS = (
    "model",
    "model_revision",
    "trust_remote_code",
    "tokens",
    "num_shards",
    "context",
    "bos",
    "separator",
    "seed",
)


@click.command("prepare")
@experiment_options(*FIELDS)
@share_options("the units of the corpora")
def command(experiment: Path | None, index: int | None, of: int | None, **flags: Any) -> None:
    """Tokenise and pack the corpora, once, before any model runs.

    Writes tokens/ below the data prefix: packed token ids of every shard, where each came from, and the manifest that
    fixes them. Killed and started again, it goes on where it was. With --index I --of N it tokenises units I, I+N,
    I+2N, ... of each corpus; the worker that finds all of them there deals, and the result is that of one worker.
    """
    resolved = resolve(experiment, overrides(flags))
    index, of = check_share(index, of)
    from kubesae.ledger import write_run  # noqa: PLC0415 - keeps --help fast
    from kubesae.model import resolve_model  # noqa: PLC0415
    from kubesae.prepare import prepare, prepare_share  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    store = open_store(resolved.data)
    store.probe()

    def vocab_size() -> int:
        return resolve_model(resolved, hashed=False).vocab_size

    prepared: Prepared | None
    if of == 1:
        prepared = prepare(resolved, store, vocab_size=vocab_size, say=say)
    else:
        prepared = prepare_share(resolved, store, index, of, vocab_size=vocab_size, say=say)
    write_run(store, resolved)
    if prepared is None:
        say(f"Worker {index} of {of} has tokenised its units. Others have not: whoever is last deals")
    else:
        _report(prepared)


def _report(prepared: Prepared) -> None:
    from rich.console import Console  # noqa: PLC0415 - keeps --help fast
    from rich.table import Table  # noqa: PLC0415

    table = Table("Corpus", box=None)
    for heading in ("Documents", "Contexts", "of tokenised", "Tokens"):
        table.add_column(heading, justify="right")
    corpora = prepared.manifest.corpora
    for corpus in corpora:
        counts = (corpus.documents, corpus.contexts, corpus.pool_contexts, corpus.tokens)
        table.add_row(corpus.name, *(f"{count:,}" for count in counts))
    Console().print(table)
    for corpus in corpora:
        if corpus.duplicates is not None:
            say(
                f"Corpus {corpus.name}: {corpus.duplicates:,} documents ({corpus.duplicate_tokens:,} tokens) were "
                "dropped, as their text came before"
            )
    total = sum(shard.tokens for shard in prepared.manifest.shards)
    state = "were prepared before" if prepared.existed else "prepared"
    shards = len(prepared.manifest.shards)
    say(f"✓ {total:,} tokens {state} in {shards} shard{'' if shards == 1 else 's'}")
