"""The tables themselves, as Parquet, with a README that says what their columns are: for pandas, DuckDB, Spark, R.

    README.md
    statistics.parquet, examples.parquet, samples.parquet
    labels.parquet, logits.parquet, neighbours.parquet,
    coactivation.parquet, populations.parquet              where there are answers

All features: the very bytes that are stored. Some: the same columns, their rows alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from kubesae.features import SCHEMAS, table_bytes
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.export.subject import Subject
    from kubesae.export.target import Target

COLUMNS = {
    "statistics": "A row a feature.",
    "examples": "The most active rows of each feature, by rank.",
    "samples": "Random active rows of each feature, then some of each decile of its activations.",
    "labels": "A row a feature: a label made by rule, without a language model.",
    "logits": "A row a feature: what its decoder direction raises and lowers most; no rows without the model's head.",
    "neighbours": "A row a feature: features of the nearest decoder rows.",
    "coactivation": "A row a feature: features that are active on the same rows.",
    "populations": "A row for each feature and corpus.",
}
MEANING = {
    "feature": "number of the feature",
    "count": "rows on which the feature is active; of populations: of the population's",
    "max": "largest activation",
    "mean": "mean activation over all unflagged rows",
    "mean_active": "mean activation over rows on which it is active",
    "mean_square_active": "mean squared activation over these",
    "std_active": "standard deviation over these, of the population",
    "frequency": "share of the unflagged rows on which it is active",
    "histogram": "active rows by activation: bin b of 64 begins at 2^(b // 2 - 16), times 1.5 where b is odd",
    "positions": "active rows by place in the context: bin b of 16 counts places 2^b - 1 to 2^(b + 1) - 2",
    "rank": "place among the feature's rows, from 1",
    "activation": "activation on the row",
    "row": "global row: which token of the data",
    "token": "token id of the row; of labels: the most common one among the largest activations, -1: dead",
    "corpus": "corpus that the row is from; null: no document's",
    "document": "document that it is from",
    "offset": "token of the document",
    "before": "token ids before it in its context",
    "after": "token ids after it",
    "activations": "the feature's activation on each of before, the row, and after",
    "kind": "of samples: random or decile; of labels: token, bigram, position, logit, mixed or dead",
    "decile": "tenth of the feature's activations that this one is in, 0 to 9, estimated",
    "label": "words for a person",
    "purity": "share of the sampled rows that agree with the label",
    "dense": "active on more than a tenth of the rows",
    "single_token": "active on one token alone, nearly",
    "positional": "active at some places of the context alone, nearly",
    "high_tokens": "token ids that it raises most, the most first",
    "high_values": "by how much",
    "low_tokens": "token ids that it lowers most, the most first",
    "low_values": "by how much",
    "neighbours": "the nearest first, itself left out",
    "cosines": "of the decoder rows",
    "others": "the largest Jaccard index first",
    "counts": "rows on which both are active",
    "jaccard": "rows on which both are active, of those on which either is",
    "npmi": "normalised pointwise mutual information, -1 to 1",
    "population": "a corpus",
    "rows": "unflagged rows of the population",
}


def write(subject: Subject, target: Target) -> None:
    """Write the tables, then what they are."""
    written: dict[str, pa.Table] = {}
    for name, table in _tables(subject):
        file = f"{name}.parquet"
        if subject.asked is None:
            target.put(file, subject.output.read(keys.interpretation(subject.named.name, file)))
            written[name] = table
        else:
            chosen = pc.is_in(table["feature"], value_set=pa.array(subject.features, pa.int32()))
            written[name] = table.filter(chosen)
            target.put(file, table_bytes(written[name]))
    target.put("README.md", readme(subject, written).encode())


def loading(url: str) -> str:
    """Return the line that opens it."""
    return f'import pandas; statistics = pandas.read_parquet("{url}/statistics.parquet")'


def _tables(subject: Subject) -> Iterator[tuple[str, pa.Table]]:
    for name in ("statistics", "examples", "samples"):
        yield name, getattr(subject.stored, name)
    if subject.answers is not None:
        for name in SCHEMAS:
            yield name, getattr(subject.answers, name)


def readme(subject: Subject, tables: dict[str, pa.Table]) -> str:
    """Return what the tables are, for people."""
    lines = [
        f"# Features of {subject.named.name}",
        "",
        f"Of {subject.identity.model}, layer {subject.named.layer}, written by kubesae.",
        f"{len(subject.features):,} features over {subject.stored.info.rows:,} tokens.",
    ]
    for name, table in tables.items():
        lines += ["", f"## {name}.parquet", f"{COLUMNS[name]} {len(table):,} rows.", ""]
        lines += ["| column | type | what |", "|---|---|---|"]
        lines += [f"| `{field.name}` | {field.type} | {MEANING[field.name]} |" for field in table.schema]
    lines += ["", "## Provenance", "```json", json.dumps(subject.provenance(), indent=1, ensure_ascii=False), "```"]
    lines += [f"\n{sentence}" for sentence in subject.missing()]
    return "\n".join(lines) + "\n"
