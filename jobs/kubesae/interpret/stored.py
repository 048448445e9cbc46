"""What an interpretation leaves in the store, and reading it back.

    interpret/<sae>/statistics.parquet   one row a feature: see `statistics_table`
    interpret/<sae>/examples.parquet     one row an example: see `contexts.examples_table`
    interpret/<sae>/samples.parquet      one row a sampled row: see `samples.samples_table`
    interpret/<sae>/interpret.json       what it was made from; written last: without it, there is no interpretation

One pass over the data is needed to make them, none to answer from them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from kubesae.errors import MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, sha256_hex, validate
from kubesae.interpret.histogram import BINS
from kubesae.ledger import keys

if TYPE_CHECKING:
    from kubesae.interpret.statistics import Statistics
    from kubesae.store import Store

# Examples lie by feature; a group of this many rows is about a thousand features.
_ROW_GROUP = 20_000
FORMAT = 2


class Source(Section):
    """What decides an interpretation's content."""

    identity: str = Field(description="identity of the data")
    sae: str = Field(description="name of the SAE")
    sae_sha256: str = Field(description="SHA-256 of the SAE's weights")
    layer: int = Field(description="layer whose activations were encoded")
    rows: int = Field(description="rows of the data, flagged ones included")
    top_k: int = Field(description="rows kept of each feature")
    samples: int = Field(description="random rows kept of each feature")
    context_tokens: int = Field(description="tokens kept on each side of such a row")


class Interpretation(Section):
    """`interpret/<sae>/interpret.json`."""

    format: Literal[2] = Field(2, description="version of the format")
    source: Source = Field(description="what it was made from")
    features: int = Field(description="features of the SAE")
    rows: int = Field(description="unflagged rows, over which the statistics run")
    flagged_rows: int = Field(description="rows left out: first positions, special tokens, norm outliers")
    statistics_sha256: str = Field(description="SHA-256 of statistics.parquet")
    examples_sha256: str = Field(description="SHA-256 of examples.parquet")
    samples_sha256: str = Field(description="SHA-256 of samples.parquet")

    def to_json(self) -> bytes:
        """Return the bytes of `interpret.json`."""
        return canonical_json(self.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Stored:
    """An interpretation, read: its tables as the module's docstring says."""

    info: Interpretation
    statistics: pa.Table
    examples: pa.Table
    samples: pa.Table


def statistics_table(statistics: Statistics) -> pa.Table:
    """Return statistics as a table, one row a feature.

    Columns: feature, count (active rows), max, mean (over all unflagged rows), frequency (active share of these);
    mean_active, mean_square_active, std_active (over active rows, as a population); histogram (active rows in each of
    the 64 bins of `histogram`).
    """
    edges = np.arange(len(statistics.histogram_FB) + 1, dtype=np.int32) * BINS
    return pa.table(
        {
            "feature": pa.array(range(len(statistics.count_F)), pa.int32()),
            "count": statistics.count_F,
            "max": statistics.max_F,
            "mean": statistics.mean_F,
            "mean_active": statistics.mean_active_F,
            "mean_square_active": statistics.mean_square_active_F,
            "std_active": statistics.std_active_F,
            "frequency": statistics.frequency_F,
            "histogram": pa.ListArray.from_arrays(pa.array(edges), pa.array(statistics.histogram_FB.reshape(-1))),
        }
    )


def write_stored(
    output: Store, source: Source, statistics: Statistics, examples: pa.Table, samples: pa.Table
) -> Stored:
    """Write an interpretation and return it."""
    table = statistics_table(statistics)
    files = {"statistics": _parquet(table), "examples": _parquet(examples), "samples": _parquet(samples)}
    info = Interpretation(
        source=source,
        features=len(statistics.count_F),
        rows=statistics.rows,
        flagged_rows=statistics.flagged,
        **{f"{name}_sha256": sha256_hex(data) for name, data in files.items()},
    )
    for name, data in files.items():
        output.put(keys.interpretation(source.sae, f"{name}.parquet"), data)
    output.put(keys.interpretation(source.sae, keys.INTERPRETED), info.to_json())
    return Stored(info, table, examples, samples)


def read_stored(output: Store, source: Source) -> Stored | None:
    """Return the stored interpretation if it was made from `source`, or from it with more rows kept; else None.

    One whose files do not have the digests that its `interpret.json` names was being replaced when its writer died: it
    counts as not there.
    """
    info = read_info(output, source)
    if info is None:
        return None
    files = {}
    for name in ("statistics", "examples", "samples"):
        try:
            files[name] = output.read(keys.interpretation(source.sae, f"{name}.parquet"))
        except MissingError:
            return None
        if sha256_hex(files[name]) != getattr(info, f"{name}_sha256"):
            return None
    return Stored(info, **{name: pq.read_table(io.BytesIO(data)) for name, data in files.items()})


def read_info(output: Store, source: Source) -> Interpretation | None:
    """Return the stored `interpret.json` if it is of this format and of `source`, or of it with more rows kept."""
    key = keys.interpretation(source.sae, keys.INTERPRETED)
    where = output.url_of(key)
    try:
        document = parse_json_object(output.read(key), where)
    except MissingError:
        return None
    if document.get("format") != FORMAT:
        return None
    info = validate(Interpretation, document, where)
    found = info.source
    enough = found.top_k >= source.top_k and found.samples >= source.samples
    same = found == source.model_copy(update={"top_k": found.top_k, "samples": found.samples})
    return info if enough and same else None


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=_ROW_GROUP, compression="zstd")
    return out.getvalue()
