"""`reason/<sae>/<name>/index.html`: rankings beside their tests, and a strip for each of some traces. One file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from kubesae.corpus import visible
from kubesae.page import bullets, document, pairs, paragraph, section, table, tiles
from kubesae.reason.console import HEAD, accuracy, cells, verdict
from kubesae.reason.report import EFFECT, SIGNIFICANT, STABLE
from kubesae.reason.strip import ROWS, STYLE, chosen_features, strip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.corpus import Tokenizer
    from kubesae.features import CodeCache
    from kubesae.reason.problems import Problem
    from kubesae.reason.report import Ranked, Ranking, Summary
    from kubesae.reason.traces import Traces

MOST_STRIPS = 24
"""traces that are drawn: as many right ones as wrong ones, where there are"""
_RULES = (
    f"Adjusted p: Mann and Whitney's test on held-out texts, over all active features; at most {SIGNIFICANT}.",
    f"d: Cohen's, on held-out texts, one value a text; at least {EFFECT} in the direction of the ranking.",
    "Injection: its top tokens and bigrams, put into ordinary text, do not raise it by 0.2 deviations or more.",
    f"Stable: it keeps half of its mean activation or more in {STABLE:.0%} or more of problems said otherwise.",
)


def page(summary: Summary, traces: Traces, cache: CodeCache, tokenizer: Tokenizer, problems: Sequence[Problem]) -> str:
    """Return the page."""
    source = summary.source
    subtitle = f"SAE {source.sae}, layer {source.layer}"
    return document(
        f"Reasoning: {summary.name}",
        subtitle,
        [
            f"<style>{STYLE}</style>",
            *_overview(summary),
            *_rankings(summary),
            *_strips(summary, traces, cache, tokenizer, problems),
        ],
    )


def link(summary: Summary, feature: int) -> str:
    """Return where a feature is shown, from this page."""
    return f"../../../interpret/{summary.source.sae}/index.html#/feature/{feature}"


def _overview(summary: Summary) -> Iterator[str]:
    shown = [(f"{summary.problems:,}", "problems"), (f"{summary.tokens:,}", "tokens of traces")]
    if summary.accuracy is not None:
        shown.append((f"{summary.accuracy:.1%}", "answers right"))
    shown.append((f"{summary.survived:,}", "features that survived"))
    yield tiles(shown)
    if summary.not_generated:
        yield paragraph(
            "Nothing was generated, so no answer is right or wrong: traces are the solutions that came with the "
            f"problems. {summary.not_generated}"
        )
    else:
        yield paragraph(f"{accuracy(summary)}.")
    if any(ranking.top for ranking in summary.rankings):
        yield paragraph(verdict(summary))
    yield section("A feature survives only where all of this holds", bullets(_RULES))


def _rankings(summary: Summary) -> Iterator[str]:
    for ranking in summary.rankings:
        if ranking.missing or ranking.texts is None:
            yield section(ranking.title, paragraph(f"None: {ranking.missing}."))
            continue
        a, b, held_a, held_b = ranking.texts
        note = f"Ranked on {a} and {b} texts, measured on {held_a} and {held_b} held-out ones."
        yield section(
            ranking.title, paragraph(note, quiet=True), _linked(table(HEAD, map(cells, ranking.top)), summary, ranking)
        )
        yield pairs((f"{one.rank}. feature {one.feature}", _fate(one)) for one in ranking.top)


def _fate(one: Ranked) -> str:
    label = f"{visible(one.label)}: " if one.label else ""
    return label + ("survived" if one.survived else f"refuted: {'; '.join(one.refuted_by)}")


def _linked(html: str, summary: Summary, ranking: Ranking) -> str:
    """Make the numbers of features links: in the table they are the only whole cells right after a rank."""
    for one in ranking.top:
        head = f"<td>{one.rank}</td><td>"
        html = html.replace(
            f"{head}{one.feature}</td>",
            f'{head}<a href="{escape(link(summary, one.feature))}">{one.feature}</a></td>',
            1,
        )
    return html


def drawn_traces(traces: Traces) -> list[int]:
    """Return the traces that are drawn, in order."""
    correct = traces.table["correct"].to_pylist()
    tokens = traces.table["tokens"].to_pylist()
    some = [number for number, ids in enumerate(tokens) if ids]
    right, wrong = ([i for i in some if correct[i] is state] for state in (True, False))
    half = MOST_STRIPS // 2
    taken = right[: max(half, MOST_STRIPS - len(wrong))] + wrong[: max(half, MOST_STRIPS - len(right))]
    rest = [i for i in some if correct[i] is None]
    return sorted([*taken, *rest][:MOST_STRIPS])


def _strips(
    summary: Summary, traces: Traces, cache: CodeCache, tokenizer: Tokenizer, problems: Sequence[Problem]
) -> Iterator[str]:
    numbers = drawn_traces(traces)
    ranked = [one.feature for ranking in summary.rankings for one in ranking.top]
    note = (
        f"{len(numbers)} of {summary.problems:,} traces, and in each the {ROWS} features with the most activation, "
        "ranked ones first. The stronger the colour, the nearer to the feature's largest activation there."
    )
    filters = "".join(
        f'<input type="radio" name="which" id="{name}"{checked}><label for="{name}"> {text}</label>'
        for name, text, checked in (
            ("all", "all", " checked"),
            ("only-right", "right", ""),
            ("only-wrong", "wrong", ""),
        )
    )
    rows = traces.table.to_pylist()
    drawn = {}
    first = {number: rows[number]["first_row"] for number in numbers}
    for codes in cache.files():
        features_N = codes.features_N().astype(np.int64)
        for number in numbers:
            begin, many = first[number] - codes.first_row, len(rows[number]["tokens"])
            if 0 <= begin < len(codes.kept_R):
                mine = (codes.row_N >= begin) & (codes.row_N < begin + many)
                found = codes.row_N[mine].astype(np.int64) - begin, features_N[mine], codes.value_N[mine]
                features = chosen_features(found[1], found[2], ranked)
                links = {feature: link(summary, feature) for feature in features}
                drawn[number] = strip(tokenizer.pieces(rows[number]["tokens"]), *found, features, links)
    body = "".join(_trace(rows[number], problems[number], drawn[number], tokenizer) for number in numbers)
    yield section("Traces", paragraph(note, quiet=True), f'<div class="strips">{filters}{body}</div>')


def _trace(row: dict[str, object], problem: Problem, svg: str, tokenizer: Tokenizer) -> str:
    state = {True: "right", False: "wrong"}.get(row["correct"], "unknown")  # type: ignore[call-overload]
    said = f"{visible(str(row['found']))}" if row["found"] is not None else "nothing"
    answer = "" if row["answer"] is None else f", right is {visible(str(row['answer']))}"
    mark = "" if state == "unknown" else f": <b>{state}</b>"
    head = f"Problem {escape(visible(problem.name))}{mark}"
    told = tokenizer.text(row["tokens"])  # type: ignore[arg-type]
    return (
        f'<details class="{state}"{" open" if state == "unknown" else ""}><summary>{head}, answered '
        f'{escape(said)}{escape(answer)}</summary><div class="row">{svg}</div>'
        f'<p class="trace">{escape(visible(problem.text))}</p><p class="trace">{escape(visible(told))}</p></details>'
    )
