"""What the answers say to a person: about one feature, and which features a text finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from kubesae.corpus import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kubesae.corpus import Vocabulary
    from kubesae.features import Answers

SHOWN = 5
FOUND = 50


def answer_lines(answers: Answers, feature: int, vocabulary: Vocabulary) -> Iterator[str]:
    """Lines about a feature: its label, the tokens that it raises and lowers, its neighbours, who is active with it."""
    labels = answers.labels["label"]
    yield ""
    yield _label(answers.labels.slice(feature, 1).to_pylist()[0])
    if answers.info.no_head:
        yield f"Raises: unknown. {answers.info.no_head}"
    else:
        row = answers.logits.slice(feature, 1).to_pylist()[0]
        for title, name in (("Raises", "high"), ("Lowers", "low")):
            pairs = zip(row[f"{name}_tokens"], row[f"{name}_values"], strict=True)
            yield f"{title}: " + ", ".join(f"{_quoted(vocabulary, token)} {value:+.2f}" for token, value in pairs)
    row = answers.neighbours.slice(feature, 1).to_pylist()[0]
    yield "Neighbours (cosine of the decoder):"
    for other, cosine in list(zip(row["neighbours"], row["cosines"], strict=True))[:SHOWN]:
        yield f"  {cosine:.4f} feature {other}: {labels[other]}"
    row = answers.coactivation.slice(feature, 1).to_pylist()[0]
    yield f"Active with (Jaccard index, NPMI, of {answers.info.coactivation_rows:,} rows):"
    columns = (row[name] for name in ("others", "counts", "jaccard", "npmi"))
    for other, count, jaccard, npmi in list(zip(*columns, strict=True))[:SHOWN]:
        yield f"  {jaccard:.4f} {npmi:+.4f} feature {other}, {count:,} rows: {labels[other]}"


def search_lines(answers: Answers, text: str, vocabulary: Vocabulary) -> Iterator[str]:
    """Lines of features whose label has `text` in it, or that are most often on, or raise, such a token.

    Letters' case does not count. In this order; within it the purest label first.
    """
    found = _search(answers, text, vocabulary)
    yield f"{len(found):,} features match '{visible(text)}'{', the first of them' if len(found) > FOUND else ''}:"
    for row, why in found[:FOUND]:
        yield f"Feature {row['feature']}: {row['label']}, {row['purity']:.0%}{why}"


def _search(answers: Answers, text: str, vocabulary: Vocabulary) -> list[tuple[dict[str, Any], str]]:
    wanted = text.casefold()
    labels, high = answers.labels.to_pylist(), answers.logits["high_tokens"].to_pylist()
    tokens = {*pc.unique(answers.labels["token"]).to_pylist(), *(token for row in high for token in row)} - {-1}
    matching = {token for token in tokens if wanted in vocabulary.text([token]).casefold()}
    ranked = []
    for feature, row in enumerate(labels):
        if row["kind"] == "dead":
            continue
        raised = [token for token in (high[feature] if high else ()) if token in matching]
        if wanted in row["label"].casefold():
            rank, why = 0, ""
        elif row["token"] in matching:
            rank, why = 1, f"; most often on {_quoted(vocabulary, row['token'])}"
        elif raised:
            rank, why = 2, f"; raises {_quoted(vocabulary, raised[0])}"
        else:
            continue
        ranked.append((rank, -row["purity"], feature, why))
    return [(labels[feature], why) for _, _, feature, why in sorted(ranked)]


def _label(row: dict[str, Any]) -> str:
    marks: Sequence[str] = [name.replace("_", " ") for name in ("dense", "single_token", "positional") if row[name]]
    also = f"; {', '.join(marks)}" if marks else ""
    if row["kind"] == "dead":
        return "Label: dead"
    return f"Label: {row['label']} ({row['kind']}, purity {row['purity']:.0%}{also})"


def _quoted(vocabulary: Vocabulary, token: int) -> str:
    return f"'{visible(vocabulary.text([token]))}'"
