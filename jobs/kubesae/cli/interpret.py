"""`kubesae interpret`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from kubesae.cli.console import say
from kubesae.cli.options import check_share, choose_sae, experiment_options, overrides, resolve, share_options
from kubesae.errors import ConfigError
from kubesae.memory import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kubesae.experiment import Interpret
    from kubesae.features import Answers
    from kubesae.interpret import Interpreter
    from kubesae.store import Store

SECONDS_BETWEEN_LINES = 10.0


@click.command("interpret")
@experiment_options("model", "interpret.context_tokens")
@share_options("the pass over the activations")
@click.option("--sae-name", help="which SAE (default: the experiment's, or the only one there is)")
@click.option("--all", "everything", is_flag=True, help="all SAEs of the experiment, one after the other")
@click.option("--statistics", is_flag=True, help="top 20 features by maximum and by frequency (the default)")
@click.option("--feature-id", type=int, help="show where this feature is most active")
@click.option("--top-k", type=click.IntRange(1), help="how many rows to show of --feature-id  [default: all stored]")
@click.option(
    "--search", metavar="TEXT", help="features whose label, or a token that they are on or raise, has TEXT in it"
)
@click.option("--themes", is_flag=True, help="features whose largest activations share a token or bigram")
@click.option(
    "--max-themes", type=click.IntRange(1), default=10, show_default=True, help="how many of --themes to show"
)
def command(
    experiment: Path | None,
    index: int | None,
    of: int | None,
    sae_name: str | None,
    everything: bool,
    statistics: bool,
    feature_id: int | None,
    top_k: int | None,
    search: str | None,
    themes: bool,
    max_themes: int,
    **flags: Any,
) -> None:
    """Feature statistics, top activating contexts, and what each feature means.

    The first call reads the activations once and stores statistics and contexts of every feature, its label, the tokens
    that it raises and lowers (where the model is on this machine), its neighbours, and which features are active with
    it; later calls answer from these. It also writes a page of all features, interpret/NAME/index.html below the output
    prefix: open it in the bucket, or by `kubesae page`. More rows of one feature than interpret.top_k come from the
    sparse-code cache.
    Killed and started again, the first call goes on where it was. With --index I --of N it encodes units I, I+N, I+2N,
    ... of the data; the worker that finds all of them there merges, and the result is that of one worker.
    """
    if top_k is not None and feature_id is None:
        raise ConfigError("--top-k says how many rows of one feature to show: give --feature-id too.")
    if everything and (sae_name or feature_id is not None):
        raise ConfigError("--all is about every SAE, --sae-name and --feature-id about one: leave one of them out.")
    resolved = resolve(experiment, overrides(flags))
    index, of = check_share(index, of)
    from kubesae.browse.page import write_page  # noqa: PLC0415 - keeps --help fast
    from kubesae.interpret import answer  # noqa: PLC0415
    from kubesae.ledger import require_identity, sae_names  # noqa: PLC0415
    from kubesae.store import open_store  # noqa: PLC0415

    _check_themes(resolved.interpret, asked=themes)
    data, output = open_store(resolved.data), open_store(resolved.output_prefix)
    names = sae_names(resolved, require_identity(data)) if everything else [choose_sae(resolved, sae_name)]
    for name in names:
        if everything:
            say(f"SAE {name}:")
        found = _interpreted(data, output, name, resolved.interpret, index, of)
        if found is None:
            continue
        answers = answer(found, resolved, say)
        page = write_page(data, output, found.stored)
        _show_answers(found, answers, feature_id, top_k, search)
        asked = feature_id is not None or search is not None or themes
        _show(found, statistics=statistics or not asked, themes=max_themes if themes else 0)
        say(f"Page: {page}" + ("" if feature_id is None else f"#/feature/{feature_id}"))


def _check_themes(settings: Interpret, *, asked: bool) -> None:
    from kubesae.interpret import TOP  # noqa: PLC0415

    if asked and settings.top_k < TOP:
        raise ConfigError(
            f"--themes looks at the {TOP} largest activations of each feature, but interpret.top_k is "
            f"{settings.top_k}: raise it."
        )


def _interpreted(
    data: Store, output: Store, name: str | None, settings: Interpret, index: int, of: int
) -> Interpreter | None:
    """Do a worker's share; None, said, where others have not done theirs."""
    keep_memory()
    from kubesae.interpret import interpret, interpret_share  # noqa: PLC0415

    if of == 1:
        return interpret(data, output, name, settings, _progress())
    found = interpret_share(data, output, name, settings, index, of, _progress())
    if found is None:
        say(f"Worker {index} of {of} has encoded its units. Others have not: whoever is last merges")
    return found


def _show_answers(
    found: Interpreter, answers: Answers, feature: int | None, top_k: int | None, search: str | None
) -> None:
    if feature is not None:
        _show_feature(found, answers, feature, top_k)
    if search is not None:
        _show_found(found, answers, search)


def _show_feature(found: Interpreter, answers: Answers, feature: int, top_k: int | None) -> None:
    from kubesae.interpret import answer_lines, feature_lines  # noqa: PLC0415

    vocabulary = found.vocabulary
    examples = found.examples(feature, top_k or found.stored.info.source.top_k)
    for line in feature_lines(found.stored.statistics, examples, feature, vocabulary):
        say(line)
    if len(examples):
        for line in answer_lines(answers, feature, vocabulary):
            say(line)


def _show_found(found: Interpreter, answers: Answers, text: str) -> None:
    from kubesae.interpret import search_lines  # noqa: PLC0415

    for line in search_lines(answers, text, found.vocabulary):
        say(line)


def _show(found: Interpreter, *, statistics: bool, themes: int) -> None:
    from kubesae.interpret import find_themes, statistics_lines, theme_lines  # noqa: PLC0415

    stored = found.stored
    if themes:
        special = found.manifest.tokenizer.special
        for line in theme_lines(find_themes(stored.examples, found.vocabulary, special), themes):
            say(line)
    if statistics:
        for line in statistics_lines(stored.info, stored.statistics):
            say(line)


def _progress() -> Callable[[int, int], None]:
    """Return what says at times how far a pass is."""
    said = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > SECONDS_BETWEEN_LINES or done == total:
            said = time.monotonic()
            say(f"Encoded {done:,} / {total:,} rows ({done / total:.1%})")

    return progress
