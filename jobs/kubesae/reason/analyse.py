"""From traces to `reason/<sae>/<name>/`: rankings, tests, summary and page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kubesae.errors import MissingError
from kubesae.experiment import parse_json_object, sha256_hex, validate
from kubesae.features import list_reasoning, table_bytes
from kubesae.features.reasoning import FORMAT
from kubesae.ledger import keys
from kubesae.reason.falsify import by_injection, by_paraphrase, verdicts
from kubesae.reason.page import page
from kubesae.reason.problems import Prompts
from kubesae.reason.rank import rank
from kubesae.reason.report import Summary, wilson
from kubesae.reason.run import make_traces, taken_problems
from kubesae.reason.texts import ordinary_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kubesae.features import Stored
    from kubesae.reason.problems import Problem
    from kubesae.reason.run import Asked, Bench
    from kubesae.reason.traces import Traces


def reason(
    bench: Bench,
    asked: Asked,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _line: None,
) -> Summary | None:
    """Solve problems, rank and test features, and write `reason/<sae>/<name>/`, or return what is there.

    Args:
        bench: the model and its SAE.
        asked: what is to be done.
        share: number of this worker, and of all that solve problems; whoever finds all solved does the rest.
        progress: called with problems solved, and all of this worker's.
        say: told what is done next.

    Returns:
        None when others have not solved their problems.

    Raises:
        ConfigError: the problems, the data or the SAE are not what they should be.

    """
    problems, sha256 = taken_problems(asked)
    prompts = Prompts(bench.tokenizer, asked.instruction)
    traces = make_traces(bench, prompts, problems, asked, sha256, share, progress)
    if traces is None:
        return None
    interpretation = bench.interpretation()
    stored = _stored(bench, asked, traces, interpretation)
    if stored is not None:
        list_reasoning(bench.output, bench.named.name, bench.named.sha256)  # a kill may have come before it
        return stored
    summary = _analyse(bench, asked, prompts, problems, traces, interpretation, say)
    list_reasoning(bench.output, bench.named.name, bench.named.sha256)
    return summary


def _settings(asked: Asked) -> dict[str, int]:
    names = ("paraphrased", "seed", "tested", "text_tokens", "texts")  # as what is stored has them: by name
    return {name: getattr(asked, name) for name in names}


def _interpretation_sha256(interpretation: Stored | None) -> str:
    return "" if interpretation is None else sha256_hex(interpretation.info.to_json())


def _stored(bench: Bench, asked: Asked, traces: Traces, interpretation: Stored | None) -> Summary | None:
    """Return the stored summary if it is of these traces, this ordinary text and these settings."""
    found = read_summary(bench, asked.name)
    if found is None:
        return None
    same = (
        found.source == traces.info.source
        and found.traces_sha256 == traces.info.traces_sha256
        and found.interpretation_sha256 == _interpretation_sha256(interpretation)
        and found.settings == _settings(asked)
    )
    return found if same else None


def read_summary(bench: Bench, name: str) -> Summary | None:
    """Return the stored summary of a set of problems; None where there is none of this format."""
    key = keys.reasoning(bench.named.name, name, keys.REASONED)
    where = bench.output.url_of(key)
    try:
        document = parse_json_object(bench.output.read(key), where)
    except MissingError:
        return None
    return validate(Summary, document, where) if document.get("format") == FORMAT else None


def _analyse(
    bench: Bench,
    asked: Asked,
    prompts: Prompts,
    problems: Sequence[Problem],
    traces: Traces,
    interpretation: Stored | None,
    say: Callable[[str], None],
) -> Summary:
    context = bench.identity.context
    orders = rank(traces, bench.output, interpretation, prompts.encode, context, asked.tested)
    features = sorted({feature for order in orders.orders for feature in order.ranked})
    if features:
        say(f"Testing {len(features)} features: their tokens in ordinary text, and problems in other words")
    texts = ordinary_texts(bench.data, bench.plan(), bench.identity.sha256, asked.texts, asked.text_tokens)
    injected = by_injection(bench.reader, traces, bench.output, texts, features, asked.seed)
    wanted = problems, traces, bench.tokenizer.text, features, asked.paraphrased
    stable = by_paraphrase(bench.reader, prompts, *wanted)
    rankings, table = verdicts(orders, injected, stable, bench.labels() or {})
    data = table_bytes(table)
    summary = _summary(bench, asked, traces, interpretation).model_copy(
        update={"rankings": rankings, "contrasts_sha256": sha256_hex(data)}
    )
    sae = bench.named.name
    bench.output.put(keys.reasoning(sae, asked.name, "contrasts.parquet"), data)
    html = page(summary, traces, traces.cache(bench.output), bench.tokenizer, problems)
    bench.output.put(keys.reasoning(sae, asked.name, "index.html"), html.encode())
    bench.output.put(keys.reasoning(sae, asked.name, keys.REASONED), summary.to_json())
    return summary


def _summary(bench: Bench, asked: Asked, traces: Traces, interpretation: Stored | None) -> Summary:
    """Return the summary without its rankings."""
    source, table = traces.info.source, traces.table
    scored = [one for one in table["correct"].to_pylist() if one is not None]
    flags = table["flags"].combine_chunks().flatten().to_numpy()
    return Summary(
        name=asked.name,
        source=source,
        traces_sha256=traces.info.traces_sha256,
        interpretation_sha256=_interpretation_sha256(interpretation),
        settings=_settings(asked),
        problems=len(table),
        scored=len(scored) if source.generated else None,
        correct=sum(scored) if source.generated else None,
        accuracy=sum(scored) / len(scored) if scored else None,
        accuracy_interval=wilson(sum(scored), len(scored)) if scored else None,
        tokens=traces.info.rows,
        flagged=int(np.count_nonzero(flags)),
        ended=sum(table["ended"].to_pylist()) if source.generated else None,
        not_generated="" if source.generated else bench.no_live,
        rankings=(),
        contrasts_sha256="",
    )
