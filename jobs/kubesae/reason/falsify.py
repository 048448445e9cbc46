"""Set beside every ranking what could refute its features: injection and paraphrases, and the verdict.

Favourite tokens are those on the half for ranking; paraphrases and largest activations are of held-out problems.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kubesae.reason.inject import entries_of, favourites, run_injection
from kubesae.reason.paraphrase import run_paraphrases
from kubesae.reason.rank import TITLES
from kubesae.reason.report import CONTRASTS, Ranked, Ranking, finite, refutations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from kubesae.reason.inject import Injected
    from kubesae.reason.paraphrase import Stability
    from kubesae.reason.problems import Problem, Prompts
    from kubesae.reason.rank import Order, Orders
    from kubesae.reason.reader import Reader
    from kubesae.reason.traces import Traces
    from kubesae.store import Store


def by_injection(
    reader: Callable[[], Reader],
    traces: Traces,
    output: Store,
    texts: Sequence[npt.NDArray[np.uint32]],
    features: Sequence[int],
    seed: int,
) -> dict[int, Injected]:
    """Put the favourite tokens of features into ordinary texts. Nothing without features or texts."""
    if not features or not texts:
        return {}
    tokens = [np.array(ids, np.uint32) for ids in traces.table["tokens"].to_pylist()]
    tokens_R = np.concatenate(tokens)
    begins_R = np.zeros(len(tokens_R), np.bool_)
    first_S = traces.table["first_row"].to_numpy()
    begins_R[first_S[[len(ids) > 0 for ids in tokens]]] = True
    half_R = np.repeat(traces.table["half"].to_numpy(), [len(ids) for ids in tokens])
    entries = entries_of(traces.cache(output).files(), features)
    mine = favourites(entries, tokens_R, begins_R, half_R == 0)
    text_R = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
    held_out_S = traces.table["half"].to_numpy() == 1
    most = {}
    for feature, (row_N, value_N) in entries.items():
        most_S = np.zeros(len(tokens))
        np.maximum.at(most_S, text_R[row_N], value_N)
        most[feature] = most_S[held_out_S]
    return run_injection(reader(), texts, most, mine, seed)


def by_paraphrase(
    reader: Callable[[], Reader],
    prompts: Prompts,
    problems: Sequence[Problem],
    traces: Traces,
    text_of: Any,
    features: Sequence[int],
    most: int,
) -> dict[int, Stability]:
    """Rewrite held-out problems, the first `most` of them; `text_of` returns the text of tokens."""
    tokens = traces.table["tokens"].to_pylist()
    told = [(problem, text_of(ids)) for problem, ids in zip(problems, tokens, strict=True) if problem.half and ids]
    return run_paraphrases(reader(), prompts, told[:most], features) if features and told[:most] else {}


def verdicts(
    orders: Orders,
    injected: Mapping[int, Injected],
    stable: Mapping[int, Stability],
    labels: Mapping[int, str],
) -> tuple[tuple[Ranking, ...], pa.Table]:
    """Return the rankings with what came of the tests, and all of it as a table of CONTRASTS."""
    rankings, rows = [], []
    for order in orders.orders:
        mine = _rows(order, orders, injected, stable)
        rows += mine
        top = sorted((row for row in mine if row["rank"] is not None), key=lambda row: row["rank"])
        stays = [row["paraphrase_stability"] for row in top if row["paraphrase_stability"] is not None]
        texts = None
        if order.ranking is not None and order.held_out is not None:
            texts = (
                order.ranking.texts_a,
                order.ranking.texts_b,
                order.held_out.texts_a,
                order.held_out.texts_b,
            )
        rankings.append(
            Ranking(
                contrast=order.name,
                title=TITLES[order.name],
                texts=texts,
                missing=order.missing,
                top=tuple(_ranked(row, labels.get(row["feature"], "")) for row in top),
                paraphrases_stay=float(np.mean(stays)) if stays else None,
            )
        )
    return tuple(rankings), pa.Table.from_pylist(rows, CONTRASTS)


def _ranked(row: dict[str, Any], label: str) -> Ranked:
    same = ("rank", "feature", "auc", "reason_score", "p", "p_adjusted", "paraphrase_stability", "survived")
    return Ranked(
        label=label,
        score=finite(row["score"]),
        d=finite(row["d"]),
        frequency_ratio=finite(row["frequency_ratio"]),
        injection=row["injection"] or "not tested",
        injection_d=None if row["injection_d"] is None else finite(row["injection_d"]),
        refuted_by=tuple(row["refuted_by"]),
        **{name: row[name] for name in same},
    )


def _rows(
    order: Order, orders: Orders, injected: Mapping[int, Injected], stable: Mapping[int, Stability]
) -> list[dict[str, Any]]:
    """Return a row for each feature that is active in one of the held-out texts, or ranked."""
    found = order.held_out
    if found is None:
        return []
    place = {feature: number for number, feature in enumerate(order.ranked, 1)}
    active = np.flatnonzero((found.frequency_a_F > 0) | (found.frequency_b_F > 0)).tolist()
    rows = []
    for feature in sorted({*active, *place}):
        row: dict[str, Any] = {
            "contrast": order.name,
            "feature": feature,
            "rank": place.get(feature),
            "score": float(order.score_F[feature]),
            "mean_a": float(found.mean_a_F[feature]),
            "mean_b": float(found.mean_b_F[feature]),
            "d": float(found.d_F[feature]),
            "auc": float(found.auc_F[feature]),
            "frequency_a": float(found.frequency_a_F[feature]),
            "frequency_b": float(found.frequency_b_F[feature]),
            "frequency_ratio": float(found.ratio_F[feature]),
            "reason_score": None if orders.reason_score_F is None else float(orders.reason_score_F[feature]),
            "p": float(found.p_F[feature]),
            "p_adjusted": float(found.adjusted_F[feature]),
            "injection_d": None,
            "paraphrase_stability": None,
            "injection": None,
        }
        if feature in place:
            row |= _tests(row, order, injected.get(feature), stable.get(feature))
        rows.append(row)
    return rows


def _tests(row: dict[str, Any], order: Order, injected: Injected | None, stable: Stability | None) -> dict[str, Any]:
    """Return the columns of what could refute a ranked feature."""
    towards = float(np.sign(order.score_F[row["feature"]])) if order.name == "correct" else 1.0
    refuted = refutations(
        p_adjusted=row["p_adjusted"],
        d=row["d"],
        towards=towards,
        injection=None if injected is None else injected.verdict,
        stability=None if stable is None else stable.share,
    )
    found: dict[str, Any] = {"survived": not refuted, "refuted_by": refuted}
    if injected is not None:
        found |= {
            "injection": injected.verdict,
            "injection_way": injected.way,
            "injection_d": injected.d,
            "injection_p": injected.p,
            "injection_before": injected.before,
            "injection_after": injected.after,
            "injection_reasoning": injected.reasoning,
        }
    if stable is not None:
        found |= {"paraphrase_pairs": stable.pairs, "paraphrase_stability": stable.share}
    return found
