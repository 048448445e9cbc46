"""The commit record of a part: one small create-only object that names every layer's tar.

A part exists when its record does; a tar that no record names is an orphan. A record holds no time, host, attempt or
Pod name, so two attempts that made the same bytes write the same record. Numerics say what computed the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from kubesae.errors import DamagedError
from kubesae.experiment import RECORD_BYTES, Section, canonical_json, parse_json_object

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHA256 = r"^[0-9a-f]{64}$"


class LayerRecord(Section):
    """What was stored of one layer of the part."""

    layer: int = Field(description="captured layer")
    key: str = Field(description="key of the tar")
    bytes: int = Field(description="size of the tar")
    sha256: str = Field(pattern=_SHA256, description="SHA-256 of the tar")
    blocks: tuple[int, ...] = Field(description="byte offset of each block's first member")
    flags: tuple[int, int, int] = Field(description="rows flagged as first position, special token, norm outlier")
    moments: str = Field(description="key of the moments file")
    moments_sha256: str = Field(pattern=_SHA256, description="SHA-256 of the moments file")
    storage_fvu: float | None = Field(
        None,
        ge=0,
        description="squared error that storing in 8 bits added to the unflagged rows, over their variance; only of "
        "such storage dtypes",
    )


class Numerics(Section):
    """What computed the bytes. Byte equality is promised only between parts that agree in all of it."""

    engine: str = Field(description="engine")
    forward_batch: int = Field(description="contexts in one forward pass")
    device: str = Field(description="device name")
    threads: int = Field(description="CPU threads")
    versions: dict[str, str] = Field(description="library versions")


class Record(Section):
    """The commit record of one part."""

    format: Literal[1] = Field(1, description="version of the record")
    identity: str = Field(pattern=_SHA256, description="identity of the data")
    shard: int = Field(description="shard")
    part: int = Field(description="part of the shard")
    rows: int = Field(description="rows in the part")
    tokens_sha256: str = Field(pattern=_SHA256, description="SHA-256 of the part's token ids, little-endian uint32")
    layers: tuple[LayerRecord, ...] = Field(description="what was stored of each layer")
    numerics: Numerics = Field(description="what computed it")

    def to_json(self) -> bytes:
        """Return the record's bytes. Raises ValueError when they are more than 4 kB."""
        data = canonical_json(self.model_dump(mode="json", exclude_none=True))
        if len(data) > RECORD_BYTES:
            raise ValueError(f"the record of part {self.part} has {len(data)} bytes, more than {RECORD_BYTES}")
        return data

    def check_place(self, identity: str, shard: int, part: int, where: str) -> None:
        """Raise DamagedError when this is not the record of that part of the data with this identity."""
        if (self.identity, self.shard, self.part) != (identity, shard, part):
            raise DamagedError(
                f"{where} is the record of shard {self.shard}, part {self.part} of the data with identity "
                f"{self.identity[:12]} (here: {identity[:12]}). Run `kubesae verify`."
            )

    def hashes(self) -> dict[str, Any]:
        """What two attempts at this part must agree on to have stored the same thing."""
        return {"tokens": self.tokens_sha256, "layers": {layer.layer: layer.sha256 for layer in self.layers}}


def storage_fvu(records: Iterable[Record]) -> dict[str, float]:
    """Return the FVU that storing in 8 bits added to each layer: the mean over parts by their rows, to four digits."""
    sums: dict[int, tuple[float, int]] = {}
    for record in records:
        for layer in record.layers:
            if layer.storage_fvu is not None:
                total, rows = sums.get(layer.layer, (0.0, 0))
                sums[layer.layer] = total + layer.storage_fvu * record.rows, rows + record.rows
    return {str(layer): float(f"{total / rows:.4g}") for layer, (total, rows) in sorted(sums.items())}


def parse_record(data: bytes, where: str) -> Record:
    """Parse a stored record; `where` (its URL) goes into the error.

    Raises:
        DamagedError: the bytes are no record.

    """
    try:
        return Record.model_validate(parse_json_object(data, where))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DamagedError(
            f"{where} is not a commit record: {field}: {first['msg']}. Restore it, or delete it and collect again: "
            "the part is made anew."
        ) from error
