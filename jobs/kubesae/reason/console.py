"""What `kubesae reason` says to a person about a set of problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubesae.corpus import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.reason.report import Ranked, Ranking, Summary

HEAD = ("#", "feature", "d", "AUC", "freq ratio", "ReasonScore", "adj. p", "injection", "d inj.", "stable", "survived")


def summary_lines(summary: Summary) -> Iterator[str]:
    """Yield lines: accuracy, then each ranking beside its tests."""
    if summary.not_generated:
        yield f"Nothing was generated: {summary.not_generated}"
        yield f"The solutions of {summary.problems:,} problems were read instead ({summary.tokens:,} tokens)"
    else:
        yield (
            f"{summary.problems:,} problems, {summary.tokens:,} tokens generated "
            f"({summary.ended:,} answers ended by themselves)"
        )
        yield accuracy(summary)
    for ranking in summary.rankings:
        yield ""
        yield from ranking_lines(ranking)
    if any(ranking.top for ranking in summary.rankings):
        yield ""
        yield verdict(summary)


def accuracy(summary: Summary) -> str:
    """Return a sentence about the answers."""
    if summary.accuracy is None or summary.accuracy_interval is None:
        return "Accuracy: unknown, as no problem states its right answer"
    low, high = summary.accuracy_interval
    return (
        f"Accuracy: {summary.correct:,} of {summary.scored:,} right, {summary.accuracy:.1%} ({low:.1%} to {high:.1%})"
    )


def verdict(summary: Summary) -> str:
    """Return the sentence that has to be read with the rankings."""
    tested = len({one.feature for ranking in summary.rankings for one in ranking.top})
    if summary.survived:
        what = "1 survived" if summary.survived == 1 else f"{summary.survived} survived"
        return (
            f"Of {tested} features tested {what}: nothing here refutes that they are about reasoning, and nothing "
            "proves it. What is ordinary text is what the experiment's corpora are."
        )
    return (
        f"None of the {tested} features tested survived: on this data nothing shows a feature of reasoning that is "
        "more than its tokens, more than chance, and the same in other words."
    )


def ranking_lines(ranking: Ranking) -> Iterator[str]:
    """Yield a ranking as a table."""
    yield f"{ranking.title}:"
    if ranking.missing or ranking.texts is None:
        yield f"  none: {ranking.missing}."
        return
    yield (
        f"  ranked on {ranking.texts[0]} and {ranking.texts[1]} texts, "
        f"measured on {ranking.texts[2]} and {ranking.texts[3]} held-out ones"
    )
    if not ranking.top:
        yield "  no feature is more active in the first."
        return
    rows = [cells(one) for one in ranking.top]
    yield from _aligned([HEAD, *rows])
    for one in ranking.top:
        reasons = "; ".join(one.refuted_by)
        label = f" ({visible(one.label)})" if one.label else ""
        yield f"  {one.rank:2d}. feature {one.feature}{label}: {f'refuted: {reasons}' if reasons else 'survived'}"
    if ranking.paraphrases_stay is not None:
        yield f"  On average the features stay in {ranking.paraphrases_stay:.0%} of the rewritten problems"


def cells(one: Ranked) -> tuple[str, ...]:
    """Return a ranked feature's columns, as HEAD names them."""
    return (
        str(one.rank),
        str(one.feature),
        number(one.d),
        f"{one.auc:.3f}",
        number(one.frequency_ratio),
        "none" if one.reason_score is None else f"{one.reason_score:.2e}",
        f"{one.p_adjusted:.2g}",
        one.injection,
        "none" if one.injection == "not tested" else number(one.injection_d),
        "none" if one.paraphrase_stability is None else f"{one.paraphrase_stability:.0%}",
        "yes" if one.survived else "no",
    )


def number(value: float | None) -> str:
    """Return a number; None is an infinite one."""
    return "inf" if value is None else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))


def intervention_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield what an intervention did, beside its controls."""
    edit = result["edit"]
    value = "" if edit["kind"] == "ablate" else f" {edit['value']:g}"
    yield f"Intervention: {edit['kind']} feature {edit['feature']}{value}"
    if result["missing"]:
        yield f"  none: {result['missing']}"
        return
    yield from _aligned(
        [
            ("", "right", "accuracy", "95 %", "cross-entropy", "change", "95 %"),
            *(
                (
                    one["name"],
                    *(
                        ("none",) * 3
                        if one["accuracy"] is None
                        else (str(one["correct"]), f"{one['accuracy']:.1%}", _percents(one["accuracy_interval"]))
                    ),
                    *(
                        ("none",) * 3
                        if one["cross_entropy"] is None
                        else (
                            f"{one['cross_entropy']:.4f}",
                            f"{one['change']:+.4f}",
                            "{:+.4f} to {:+.4f}".format(*one["change_interval"]),
                        )
                    ),
                )
                for one in result["variants"]
            ),
        ]
    )


def _percents(interval: Sequence[float]) -> str:
    return f"{interval[0]:.1%} to {interval[1]:.1%}"
