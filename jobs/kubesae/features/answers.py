"""What is answered about every feature once it was counted: its label, what it writes, its neighbours, its populations.

    interpret/<sae>/labels.parquet         LABELS
    interpret/<sae>/logits.parquet         LOGITS; no rows where the model's head could not be had
    interpret/<sae>/neighbours.parquet     NEIGHBOURS
    interpret/<sae>/coactivation.parquet   COACTIVATION
    interpret/<sae>/populations.parquet    POPULATIONS
    interpret/<sae>/answers.json           what they were made from; written last: without it, there are no answers

All come from the interpretation, its sparse codes and the SAE's weights, none from a second read of the activations.
Each table has its features in order; all but POPULATIONS (and an empty LOGITS) one row each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from kubesae.errors import MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, sha256_hex, validate
from kubesae.features.tables import put_tables, read_tables, tables_bytes
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubesae.store import Store

FORMAT = 1
ANSWERED = "answers.json"
_INTS, _FLOATS = pa.list_(pa.int32()), pa.list_(pa.float32())

LABELS = pa.schema(
    {
        "feature": pa.int32(),
        "label": pa.string(),  # words for a person: "token ' the'", "bigram 'of the'", "position 1-3", "writes ' cat'"
        "kind": pa.string(),  # token, bigram, position, logit, mixed (nothing fits), dead
        "purity": pa.float32(),  # share of the feature's sampled rows that agree with the label
        "token": pa.int64(),  # the most common token among its largest activations; -1: dead
        "dense": pa.bool_(),
        "single_token": pa.bool_(),
        "positional": pa.bool_(),
    }
)
LOGITS = pa.schema(
    {
        "feature": pa.int32(),
        "high_tokens": _INTS,  # what its decoder direction raises most, the most first
        "high_values": _FLOATS,
        "low_tokens": _INTS,  # what it lowers most, the most first
        "low_values": _FLOATS,
    }
)
NEIGHBOURS = pa.schema(
    {
        "feature": pa.int32(),
        "neighbours": _INTS,  # features of the nearest decoder directions, the nearest first, itself left out
        "cosines": _FLOATS,
    }
)
COACTIVATION = pa.schema(
    {
        "feature": pa.int32(),
        "others": _INTS,  # features that are active on the same rows, the largest Jaccard index first
        "counts": pa.list_(pa.int64()),  # rows on which both are active, of `Answers.coactivation_rows`
        "jaccard": _FLOATS,
        "npmi": _FLOATS,
    }
)
POPULATIONS = pa.schema(
    {
        "feature": pa.int32(),
        "population": pa.string(),  # a corpus
        "rows": pa.int64(),  # unflagged rows of the population
        "count": pa.int64(),  # those on which the feature is active
        "mean_active": pa.float32(),  # mean activation over these
    }
)
SCHEMAS = {
    "labels": LABELS,
    "logits": LOGITS,
    "neighbours": NEIGHBOURS,
    "coactivation": COACTIVATION,
    "populations": POPULATIONS,
}


class AnswersInfo(Section):
    """`interpret/<sae>/answers.json`."""

    format: Literal[1] = Field(1, description="version of the format")
    interpretation_sha256: str = Field(description="SHA-256 of interpret.json, whose features these are about")
    head: str = Field(description="revision of the model whose head the logits are of; empty where there was none")
    no_head: str = Field(description="why there are no logits; empty where there are")
    coactivation_rows: int = Field(description="rows over which co-activation was counted")
    sha256: dict[str, str] = Field(description="SHA-256 of each table's file")

    def to_json(self) -> bytes:
        """Return the bytes of `answers.json`."""
        return canonical_json(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers, read: tables as the module's docstring says."""

    info: AnswersInfo
    labels: pa.Table
    logits: pa.Table
    neighbours: pa.Table
    coactivation: pa.Table
    populations: pa.Table


def write_answers(
    output: Store,
    sae: str,
    interpretation: bytes,
    tables: Mapping[str, pa.Table],
    *,
    head: str = "",
    no_head: str = "",
    coactivation_rows: int,
) -> Answers:
    """Write tables, by the names of SCHEMAS, about the `interpret.json` whose bytes are given, and return them."""
    tables = {name: tables[name].cast(schema) for name, schema in SCHEMAS.items()}
    files = tables_bytes(tables)
    info = AnswersInfo(
        interpretation_sha256=sha256_hex(interpretation),
        head=head,
        no_head=no_head,
        coactivation_rows=coactivation_rows,
        sha256={name: sha256_hex(data) for name, data in files.items()},
    )
    put_tables(output, sae, files)
    output.put(keys.interpretation(sae, ANSWERED), info.to_json())
    return Answers(info, **tables)


def read_answers(output: Store, sae: str, interpretation: bytes) -> Answers | None:
    """Return the answers about the `interpret.json` whose bytes are given; None where there are none, or not whole."""
    where = output.url_of(keys.interpretation(sae, ANSWERED))
    try:
        document = parse_json_object(output.read(keys.interpretation(sae, ANSWERED)), where)
        if document.get("format") != FORMAT:
            return None
        info = validate(AnswersInfo, document, where)
    except MissingError:
        return None
    if info.interpretation_sha256 != sha256_hex(interpretation) or set(info.sha256) != set(SCHEMAS):
        return None
    tables = read_tables(output, sae, info.sha256)
    return None if tables is None else Answers(info, **tables)
