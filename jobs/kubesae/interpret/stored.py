"""What an interpretation leaves in the store, and reading it back.

    interpret/<sae>/statistics.parquet   one row a feature: feature, count, max, mean, mean_active, frequency
    interpret/<sae>/examples.parquet     one row an example: see `contexts.examples_table`
    interpret/<sae>/interpret.json       what it was made from; written last: without it, there is no interpretation

One pass over the data is needed to make them, none to answer from them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from kubesae.errors import MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, sha256_hex, validate
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.interpret.statistics import Statistics
    from kubesae.store import Store

# Examples lie by feature; a group of this many rows is about a thousand features.
_ROW_GROUP = 20_000


class Source(Section):
    """What decides an interpretation's content."""

    identity: str = Field(description="identity of the data")
    sae: str = Field(description="name of the SAE")
    sae_sha256: str = Field(description="SHA-256 of the SAE's weights")
    layer: int = Field(description="layer whose activations were encoded")
    rows: int = Field(description="rows of the data, flagged ones included")
    top_k: int = Field(description="rows kept of each feature")
    context_tokens: int = Field(description="tokens kept on each side of such a row")


class Interpretation(Section):
    """`interpret/<sae>/interpret.json`."""

    format: Literal[1] = Field(1, description="version of the format")
    source: Source = Field(description="what it was made from")
    features: int = Field(description="features of the SAE")
    rows: int = Field(description="unflagged rows, over which the statistics run")
    flagged_rows: int = Field(description="rows left out: first positions, special tokens, norm outliers")
    statistics_sha256: str = Field(description="SHA-256 of statistics.parquet")
    examples_sha256: str = Field(description="SHA-256 of examples.parquet")

    def to_json(self) -> bytes:
        """Return the bytes of `interpret.json`."""
        return canonical_json(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Stored:
    """An interpretation, read: `statistics` and `examples` as the module's docstring says."""

    info: Interpretation
    statistics: pa.Table
    examples: pa.Table


def statistics_table(statistics: Statistics) -> pa.Table:
    """Return statistics as a table, one row a feature."""
    return pa.table(
        {
            "feature": pa.array(range(len(statistics.count_F)), pa.int32()),
            "count": statistics.count_F,
            "max": statistics.max_F,
            "mean": statistics.mean_F,
            "mean_active": statistics.mean_active_F,
            "frequency": statistics.frequency_F,
        }
    )


def write_stored(output: Store, source: Source, statistics: Statistics, examples: pa.Table) -> Stored:
    """Write an interpretation and return it."""
    table = statistics_table(statistics)
    files = {"statistics": _parquet(table), "examples": _parquet(examples)}
    info = Interpretation(
        source=source,
        features=len(statistics.count_F),
        rows=statistics.rows,
        flagged_rows=statistics.flagged,
        statistics_sha256=sha256_hex(files["statistics"]),
        examples_sha256=sha256_hex(files["examples"]),
    )
    for name, data in files.items():
        output.put(keys.interpretation(source.sae, f"{name}.parquet"), data)
    output.put(keys.interpretation(source.sae, keys.INTERPRETED), info.to_json())
    return Stored(info, table, examples)


def read_stored(output: Store, source: Source) -> Stored | None:
    """Return the stored interpretation if it was made from `source`, or from it with more rows kept; else None.

    One whose files do not have the digests that its `interpret.json` names was being replaced when its writer died: it
    counts as not there.
    """
    key = keys.interpretation(source.sae, keys.INTERPRETED)
    where = output.url_of(key)
    try:
        info = validate(Interpretation, parse_json_object(output.read(key), where), where)
        if info.source.top_k < source.top_k or info.source != source.model_copy(update={"top_k": info.source.top_k}):
            return None
        statistics = output.read(keys.interpretation(source.sae, "statistics.parquet"))
        examples = output.read(keys.interpretation(source.sae, "examples.parquet"))
    except MissingError:
        return None
    if (sha256_hex(statistics), sha256_hex(examples)) != (info.statistics_sha256, info.examples_sha256):
        return None
    return Stored(info, pq.read_table(io.BytesIO(statistics)), pq.read_table(io.BytesIO(examples)))


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=_ROW_GROUP, compression="zstd")
    return out.getvalue()
