"""Explain features by a language model, and say how much each explanation is worth. Never needed, never run unasked.

    kubesae explain experiment.yaml --count 20 --endpoint http://127.0.0.1:8000/v1 --model NAME
    kubesae explain experiment.yaml --features 1,5,7 --export-prompts prompts.jsonl

    interpret/<sae>/explanations.parquet     EXPLANATIONS, written after each feature: started again it goes on

A feature takes one question for its explanation and, with 100 + 100 examples, 80 that judge it.
"""

from __future__ import annotations

import io
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kubesae.corpus import require_manifest
from kubesae.errors import ConfigError, KubesaeError, MissingError
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.features import read_interpretation, table_bytes
from kubesae.interpret.explain.examples import examples_of
from kubesae.interpret.explain.prompts import (
    EXPLANATION,
    EXPLANATION_TOKENS,
    SCORE_TOKENS,
    VERSION,
    read_explanation,
    read_list,
)
from kubesae.interpret.explain.questions import BATCH, KINDS, Question, first_question, questions_of
from kubesae.interpret.explain.scores import Score
from kubesae.interpret.kept import by_hash
from kubesae.interpret.run import Interpreter
from kubesae.ledger import keys, require_identity
from kubesae.parallel import in_order
from kubesae.sae.named import open_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kubesae.corpus import Vocabulary
    from kubesae.interpret.explain.endpoint import Endpoint
    from kubesae.store import Store

FILE = "explanations.parquet"
EXPLANATIONS = pa.schema(
    {
        "feature": pa.int32(),
        "explanation": pa.string(),
        **{
            name: kind
            for score in KINDS
            for name, kind in (
                (score, pa.float32()),  # balanced accuracy; null where nothing of one kind was judged
                (f"{score}_positives", pa.int32()),  # judged examples on which the feature is active
                (f"{score}_negatives", pa.int32()),
                (f"{score}_unanswered", pa.int32()),
            )
        },
        "model": pa.string(),  # that explained and judged
        "made_of": pa.string(),  # SHA-256 of the interpretation's hash and of how questions are made
    }
)


def open_interpretation(data: Store, output: Store, name: str | None) -> Interpreter:
    """Return the interpretation of an SAE that is there.

    Raises:
        ConfigError: there is no such SAE, or it was not interpreted, or over other data.

    """
    identity, manifest = require_identity(data), require_manifest(data)
    named = open_named(output, name, identity)
    stored = read_interpretation(output, named.name, named.sha256)
    if stored is None:
        raise ConfigError(f"SAE {named.name} at {output.url} is not interpreted yet. Run `kubesae interpret` first.")
    if stored.info.source.identity != identity.sha256:
        raise ConfigError(
            f"SAE {named.name} at {output.url} was interpreted over other data than {data.url}. Give that one with "
            "--data, or run `kubesae interpret` over this."
        )
    return Interpreter(data, output, identity, manifest, named, stored)


def choose(found: Interpreter, features: Sequence[int], count: int) -> list[int]:
    """Return the features that were asked for, or `count` live ones by hash: a fair sample, the same each time.

    Raises:
        ConfigError: there is no such feature, or none is live.

    """
    total, live = found.stored.info.features, np.flatnonzero(found.stored.statistics["count"].to_numpy())
    for feature in features:
        if not 0 <= feature < total:
            raise ConfigError(
                f"SAE {found.named.name} has no feature {feature}: its features are 0 to {total - 1}. Choose others."
            )
        if feature not in live:
            raise ConfigError(f"Feature {feature} is active on no row of this data: leave it out.")
    if features:
        return list(dict.fromkeys(features))
    if len(live) == 0:
        raise ConfigError(f"SAE {found.named.name} has no live feature: there is nothing to explain. Train it again.")
    chosen: list[int] = live[np.argsort(by_hash(live))][:count].tolist()
    return chosen


def prompts(found: Interpreter, features: Sequence[int], most: int) -> Iterator[str]:
    """Yield all questions as lines of JSON: feature, kind, messages, and of those that judge `truth`.

    In these `{explanation}` stands where the explanation goes.
    """
    vocabulary = found.vocabulary
    for feature in features:
        examples = examples_of(found, feature, most)
        lines = [{"feature": feature, "kind": "explanation", "messages": first_question(examples, vocabulary)}]
        lines += [
            {
                "feature": feature,
                "kind": one.kind,
                "messages": one.messages(EXPLANATION),
                "truth": list(map(int, one.truth)),
            }
            for one in questions_of(feature, examples, vocabulary)
        ]
        yield from (json.dumps(line, ensure_ascii=False) for line in lines)


def explain(
    found: Interpreter,
    features: Sequence[int],
    endpoint: Endpoint,
    most: int = 100,
    parallel: int = 4,
    say: Callable[[str], None] = lambda _: None,
) -> pa.Table:
    """Explain features and judge the explanations; return the table of all that are explained.

    Args:
        found: the interpretation.
        features: live ones.
        endpoint: the language model.
        most: examples of each kind to judge on.
        parallel: questions at a time.
        say: is told of each feature that is done.

    Raises:
        ConfigError, AccessError, KubesaeError: as `Endpoint.complete`; what is done by then is stored.
        KubesaeError: the model gave no explanation of some feature, said at the end.

    """
    made_of = _made_of(found, most)
    rows = {row["feature"]: row for row in _stored(found)}
    vocabulary, silent = found.vocabulary, []
    for feature in features:
        row = rows.get(feature)
        if row is None or (row["model"], row["made_of"]) != (endpoint.model, made_of):
            row = _explained(found, vocabulary, feature, endpoint, most, parallel)
            if row is None:
                silent.append(feature)
                continue
            rows[feature] = row | {"model": endpoint.model, "made_of": made_of}
            _write(found, rows)
        say(_line(row))
    if silent:
        raise KubesaeError(
            f"{endpoint.model} gave no explanation of {len(silent)} of {len(features)} features, {silent[0]} the first "
            "of them. Start again, or take another model."
        )
    return pa.Table.from_pylist([rows[feature] for feature in sorted(rows)], EXPLANATIONS)


def _explained(
    found: Interpreter, vocabulary: Vocabulary, feature: int, endpoint: Endpoint, most: int, parallel: int
) -> dict[str, Any] | None:
    examples = examples_of(found, feature, most)
    explanation = read_explanation(endpoint.complete(first_question(examples, vocabulary), EXPLANATION_TOKENS))
    if not explanation:
        return None
    questions = questions_of(feature, examples, vocabulary)
    answers = list(in_order(partial(_asked, endpoint, explanation), questions, parallel))
    row: dict[str, Any] = {"feature": feature, "explanation": explanation}
    for kind in KINDS:
        own = [pair for one, found in zip(questions, answers, strict=True) if one.kind == kind for pair in found]
        score = Score.of(own)
        row |= {kind: score.value, f"{kind}_positives": score.positives, f"{kind}_negatives": score.negatives}
        row[f"{kind}_unanswered"] = score.unanswered
    return row


def _asked(endpoint: Endpoint, explanation: str, question: Question) -> list[tuple[bool, bool | None]]:
    """Return what is right and what was answered for each text of a question."""
    answers = read_list(endpoint.complete(question.messages(explanation), SCORE_TOKENS), len(question.truth))
    if answers is None:
        return [(truth, None) for truth in question.truth]
    return list(zip(question.truth, answers, strict=True))


def _made_of(found: Interpreter, most: int) -> str:
    interpretation = sha256_hex(found.stored.info.to_json())
    return sha256_hex(canonical_json({"interpretation": interpretation, "prompts": [VERSION, BATCH], "examples": most}))


def _stored(found: Interpreter) -> list[dict[str, Any]]:
    try:
        data = found.output.read(keys.interpretation(found.named.name, FILE))
    except MissingError:
        return []
    table = pq.read_table(io.BytesIO(data))
    rows: list[dict[str, Any]] = table.to_pylist() if table.schema.equals(EXPLANATIONS) else []
    return rows


def _write(found: Interpreter, rows: dict[int, dict[str, Any]]) -> None:
    table = pa.Table.from_pylist([rows[feature] for feature in sorted(rows)], EXPLANATIONS)
    found.output.put(keys.interpretation(found.named.name, FILE), table_bytes(table))


def _line(row: dict[str, Any]) -> str:
    scores = ", ".join(f"{kind} {'unknown' if row[kind] is None else format(row[kind], '.2f')}" for kind in KINDS)
    return f"Feature {row['feature']}: {row['explanation']} ({scores})"
