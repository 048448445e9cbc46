"""What an interpretation leaves in the store, and reading it back.

    interpret/<sae>/codes/               which features are active on which rows: see `codes`
    interpret/<sae>/statistics.parquet   one row a feature: see `interpret.statistics.statistics_table`
    interpret/<sae>/examples.parquet     one row an example: see `interpret.contexts.examples_table`
    interpret/<sae>/samples.parquet      one row a sampled row: see `interpret.samples.samples_table`
    interpret/<sae>/interpret.json       what it was made from; written last: without it, there is no interpretation

One pass over the data is needed to make them, none to answer from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, sha256_hex, validate
from kubesae.features.codes import CodeCache, CodesFile
from kubesae.features.tables import put_tables, read_tables, tables_bytes
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from kubesae.store import Store

FORMAT = 3
_TABLES = ("statistics", "examples", "samples")


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

    format: Literal[3] = Field(3, description="version of the format")
    source: Source = Field(description="what it was made from")
    features: int = Field(description="features of the SAE")
    rows: int = Field(description="unflagged rows, over which the statistics run")
    flagged_rows: int = Field(description="rows left out: first positions, special tokens, norm outliers")
    statistics_sha256: str = Field(description="SHA-256 of statistics.parquet")
    examples_sha256: str = Field(description="SHA-256 of examples.parquet")
    samples_sha256: str = Field(description="SHA-256 of samples.parquet")
    codes: tuple[CodesFile, ...] = Field(description="files of the sparse-code cache, in row order")

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

    def cache(self, output: Store) -> CodeCache:
        """Return the sparse codes of all rows, to be read from where the interpretation is."""
        return CodeCache(output, self.info.codes, self.info.features)


def write_stored(
    output: Store, source: Source, rows: int, flagged: int, tables: Mapping[str, pa.Table], codes: Sequence[CodesFile]
) -> Stored:
    """Write an interpretation and return it.

    Args:
        output: where to.
        source: what it was made from.
        rows: unflagged rows.
        flagged: rows left out.
        tables: statistics, examples, samples.
        codes: files of the cache, which are there already.

    """
    files = tables_bytes({name: tables[name] for name in _TABLES})
    info = Interpretation(
        source=source,
        features=len(tables["statistics"]),
        rows=rows,
        flagged_rows=flagged,
        codes=tuple(codes),
        **{f"{name}_sha256": sha256_hex(data) for name, data in files.items()},
    )
    put_tables(output, source.sae, files)
    output.put(keys.interpretation(source.sae, keys.INTERPRETED), info.to_json())
    return Stored(info, **{name: tables[name] for name in _TABLES})


def read_stored(output: Store, source: Source) -> Stored | None:
    """Return the stored interpretation if it was made from `source`, or from it with more rows kept; else None.

    One whose files do not have the digests that its `interpret.json` names was being replaced when its writer died: it
    counts as not there. So does one that lacks a file of its cache.
    """
    info = read_info(output, source.sae)
    return None if info is None or not _answers(info.source, source) else _read(output, info)


def read_interpretation(output: Store, sae: str, sae_sha256: str) -> Stored | None:
    """Return the stored interpretation of the SAE with these weights, whatever was kept; None where there is none."""
    info = read_info(output, sae)
    return None if info is None or info.source.sae_sha256 != sae_sha256 else _read(output, info)


def read_info(output: Store, sae: str) -> Interpretation | None:
    """Return the stored `interpret.json` of an SAE; None where there is none of this format."""
    key = keys.interpretation(sae, keys.INTERPRETED)
    where = output.url_of(key)
    try:
        document = parse_json_object(output.read(key), where)
    except MissingError:
        return None
    return validate(Interpretation, document, where) if document.get("format") == FORMAT else None


def _answers(found: Source, wanted: Source) -> bool:
    """Whether what was made from `found` has everything that is asked for."""
    enough = found.top_k >= wanted.top_k and found.samples >= wanted.samples
    return enough and found == wanted.model_copy(update={"top_k": found.top_k, "samples": found.samples})


def _read(output: Store, info: Interpretation) -> Stored | None:
    tables = read_tables(output, info.source.sae, {name: getattr(info, f"{name}_sha256") for name in _TABLES})
    if tables is None:
        return None
    if not {file.key for file in info.codes} <= set(output.list(keys.interpretation_codes(info.source.sae))):
        return None
    return Stored(info, **tables)
