"""Traces of problems: what was asked, what was written, whether it is right, and which features were active on it.

    reason/<sae>/<name>/units/unit-000003.<sha12>.json    traces of some problems, until all are put together
    reason/<sae>/<name>/codes/unit-000003.<sha12>.safetensors   their sparse codes, in the format of `features.codes`
    reason/<sae>/<name>/traces.parquet                    one row a problem: TRACES
    reason/<sae>/<name>/traces.json                       what they were made from; written last

A unit is a batch of problems, always the same ones: what a forward pass is given decides its bits, so traces that were
begun, killed and gone on with are those of one run. Rows of the codes are the tokens of all traces in order.
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
from kubesae.features import CodeCache, CodesBuilder, CodesFile, table_bytes
from kubesae.ledger import keys
from kubesae.reason.reader import entries, flags_of
from kubesae.reason.scoring import is_right, stated_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from kubesae.reason.problems import Problem
    from kubesae.sae import Sae
    from kubesae.store import Store

FORMAT = 2
TRACES = pa.schema(
    {
        "problem": pa.string(),  # its name
        "half": pa.int8(),  # 0: features are ranked on it; 1: held out
        "level": pa.string(),
        "subject": pa.string(),
        "answer": pa.string(),  # the right one; null where the file states none
        "found": pa.string(),  # the one in the trace; null where there is none
        "correct": pa.bool_(),  # null where there is no right answer, or nothing was generated
        "ended": pa.bool_(),  # by itself, not at the limit
        "prompt": pa.list_(pa.uint32()),
        "tokens": pa.list_(pa.uint32()),  # what was written
        "flags": pa.list_(pa.uint8()),  # of each of these
        "first_row": pa.int64(),  # of the codes
    }
)


class TraceSource(Section):
    """What decides traces."""

    format: Literal[2] = Field(2, description="version of the format")
    identity: str = Field(description="identity of the data")
    model: str = Field(description="revision of the model")
    dtype: str = Field(description="what it computes in")
    sae: str = Field(description="name of the SAE")
    sae_sha256: str = Field(description="SHA-256 of its weights")
    layer: int = Field(description="layer whose output is encoded")
    problems_sha256: str = Field(description="SHA-256 of the file of problems")
    limit: int | None = Field(description="problems of it that are taken, the first ones; null: all")
    instruction: str = Field(description="what is said after each problem")
    chat: bool = Field(description="whether the tokenizer's chat template makes the prompts")
    generated: bool = Field(description="whether the model wrote the traces; else they are the solutions in the file")
    batch: int = Field(description="problems of one forward pass")
    most: int = Field(description="tokens of a trace, at most")
    temperature: float = Field(description="0: always the likeliest token")
    seed: int = Field(description="with which tokens are drawn")

    @property
    def sha12(self) -> str:
        """What tells these from others."""
        return sha256_hex(canonical_json(self.model_dump(mode="json")))[:12]


class TracesInfo(Section):
    """`reason/<sae>/<name>/traces.json`."""

    source: TraceSource = Field(description="what they were made from")
    features: int = Field(description="features of the SAE")
    rows: int = Field(description="tokens of all traces")
    traces_sha256: str = Field(description="SHA-256 of traces.parquet")
    codes: tuple[CodesFile, ...] = Field(description="files of the sparse codes, in row order")

    def to_json(self) -> bytes:
        """Return the bytes of `traces.json`."""
        return canonical_json(self.model_dump(mode="json"))


class Trace(Section):
    """One problem's trace, in a unit."""

    found: str | None = Field(description="the answer in it")
    correct: bool | None = Field(description="whether that is right")
    ended: bool = Field(description="whether it ended by itself")
    prompt: tuple[int, ...] = Field(description="tokens of the prompt")
    tokens: tuple[int, ...] = Field(description="tokens of the trace")
    flags: tuple[int, ...] = Field(description="flags of these")


class Unit(Section):
    """Traces of a batch of problems."""

    traces: tuple[Trace, ...] = Field(description="in order")
    codes: CodesFile = Field(description="file of their codes, whose rows are counted from 0")


@dataclass(frozen=True, slots=True)
class Traces:
    """Traces, read: a table as TRACES, and the codes."""

    info: TracesInfo
    table: pa.Table

    def cache(self, output: Store) -> CodeCache:
        """Return the sparse codes, to be read from where they are."""
        return CodeCache(output, self.info.codes, self.info.features)


@dataclass(frozen=True, slots=True)
class Written:
    """A trace before it is encoded: prompt and tokens, and the layer's output [T, D] on these."""

    prompt: npt.NDArray[np.uint32]
    ids_T: npt.NDArray[np.uint32]
    x_TD: Tensor
    text: str
    ended: bool


def units_of(source: TraceSource, count: int) -> list[range]:
    """Return the problems of each unit."""
    return [range(at, min(at + source.batch, count)) for at in range(0, count, source.batch)]


def unit_key(source: TraceSource, name: str, number: int) -> str:
    """Return the key of a unit."""
    return keys.reasoning_unit(source.sae, name, number, source.sha12)


def write_unit(
    output: Store,
    source: TraceSource,
    name: str,
    number: int,
    problems: Sequence[Problem],
    written: Sequence[Written],
    sae: Sae,
    special: npt.NDArray[np.uint32],
) -> None:
    """Encode and score the traces of a unit's problems, and store them."""
    rows = sum(len(one.ids_T) for one in written)
    builder = CodesBuilder(0, rows, sae.config.d_sae)
    traces, first = [], 0
    for problem, one in zip(problems, written, strict=True):
        flags_T = flags_of(one.ids_T, one.x_TD, np.arange(len(one.prompt), len(one.prompt) + len(one.ids_T)), special)
        row_N, feature_N, value_N = entries(sae, one.x_TD)
        kept_N = flags_T[row_N] == 0
        builder.add(first + np.flatnonzero(flags_T == 0), first + row_N[kept_N], feature_N[kept_N], value_N[kept_N])
        first += len(one.ids_T)
        scored = source.generated and problem.answer is not None
        traces.append(
            Trace(
                found=stated_answer(one.text),
                correct=is_right(one.text, problem.answer) if scored and problem.answer is not None else None,
                ended=one.ended,
                prompt=tuple(one.prompt.tolist()),
                tokens=tuple(one.ids_T.tolist()),
                flags=tuple(flags_T.tolist()),
            )
        )
    codes = builder.finish()
    content = codes.to_bytes()
    sha256 = sha256_hex(content)
    key = keys.reasoning_code(source.sae, name, number, sha256[:12])
    output.put(key, content)
    file = CodesFile(key=key, first_row=0, rows=rows, entries=len(codes.row_N), sha256=sha256)
    unit = Unit(traces=tuple(traces), codes=file)
    output.put(unit_key(source, name, number), canonical_json(unit.model_dump(mode="json")))


def merge(output: Store, source: TraceSource, name: str, problems: Sequence[Problem], features: int) -> Traces | None:
    """Put the units together and store them; None where one is not there."""
    rows: list[dict[str, object]] = []
    files: list[CodesFile] = []
    first = 0
    there = set(output.list(keys.reasoning_units(source.sae, name)))
    units = units_of(source, len(problems))
    if not all(unit_key(source, name, number) in there for number in range(len(units))):
        return None
    for number, members in enumerate(units):
        unit = _read_unit(output, unit_key(source, name, number))
        if unit is None:  # another worker has put them together
            return read_traces(output, source, name)
        files.append(unit.codes.model_copy(update={"first_row": first}))
        for place, trace in zip(members, unit.traces, strict=True):
            problem = problems[place]
            rows.append(
                trace.model_dump()
                | {"problem": problem.name, "half": problem.half, "level": problem.level, "subject": problem.subject}
                | {"answer": problem.answer, "first_row": first}
            )
            first += len(trace.tokens)
    table = pa.Table.from_pylist(rows, TRACES)
    data = table_bytes(table)
    info = TracesInfo(source=source, features=features, rows=first, traces_sha256=sha256_hex(data), codes=tuple(files))
    output.put(keys.reasoning(source.sae, name, "traces.parquet"), data)
    output.put(keys.reasoning(source.sae, name, keys.TRACED), info.to_json())
    return Traces(info, table)


def _read_unit(output: Store, key: str) -> Unit | None:
    try:
        return validate(Unit, parse_json_object(output.read(key), output.url_of(key)), output.url_of(key))
    except MissingError:
        return None


def read_traces(output: Store, source: TraceSource, name: str) -> Traces | None:
    """Return the stored traces that were made from `source`; None where there are none, or not whole."""
    key = keys.reasoning(source.sae, name, keys.TRACED)
    try:
        document = parse_json_object(output.read(key), output.url_of(key))
        if document.get("source", {}).get("format") != FORMAT:
            return None
        info = validate(TracesInfo, document, output.url_of(key))
        data = output.read(keys.reasoning(source.sae, name, "traces.parquet"))
    except MissingError:
        return None
    if info.source != source or sha256_hex(data) != info.traces_sha256:
        return None
    if not {file.key for file in info.codes} <= set(output.list(keys.reasoning(source.sae, name, "codes/"))):
        return None
    return Traces(info, pq.read_table(io.BytesIO(data)))


def remove_units(output: Store, traces: Traces, name: str) -> None:
    """Remove what was put together, and the codes of earlier traces under the same name."""
    sae, named = traces.info.source.sae, {file.key for file in traces.info.codes}
    for key in output.list(keys.reasoning_units(sae, name)):
        output.delete(key)
    for key in output.list(keys.reasoning(sae, name, "codes/")):
        if key not in named:
            output.delete(key)
