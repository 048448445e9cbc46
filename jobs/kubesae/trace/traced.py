"""What is known of a row: what `kubesae trace --json` prints, and its lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kubesae.corpus import visible
from kubesae.experiment import Section
from kubesae.shards import FIRST_POSITION, NORM_OUTLIER, SPECIAL_TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = {FIRST_POSITION: "first position", SPECIAL_TOKEN: "special token", NORM_OUTLIER: "norm outlier"}


class Place(Section):
    """Where a row lies in the plan: the same for every layer."""

    shard: int = Field(description="shard")
    shard_row: int = Field(description="row of the shard")
    context: int = Field(description="context of the shard")
    position: int = Field(description="position in the context")
    part: int = Field(description="part of the shard")
    block: int = Field(description="block of the part")
    block_row: int = Field(description="row of the block")


class Text(Section):
    """A token with the text around it, in its context."""

    token: int = Field(description="token id")
    before: str = Field(description="text of the tokens before it")
    marked: str = Field(description="its text: of a piece of a character, the whole character")
    after: str = Field(description="text of the tokens after it")


class Stored(Section):
    """What lies in the store of the row and one layer."""

    layer: int = Field(description="captured layer")
    tar: str = Field(description="key of the tar")
    block: str = Field(description="key of the sample in the tar")
    flags: int = Field(description="flag bits: 1 first position, 2 special token, 4 norm outlier")
    norm: float | None = Field(description="norm of the activation, where it was asked for")


class Traced(Section):
    """A row: where it comes from and where it lies."""

    row: int = Field(description="global row")
    text: Text = Field(description="token and text")
    corpus: str | None = Field(description="corpus; null where the token belongs to no document")
    document: str | None = Field(description="document")
    offset: int | None = Field(description="token of the document")
    place: Place = Field(description="where it lies in the plan")
    flags: int = Field(description="flag bits; 4, norm outlier, is known of a stored row only")
    stored: Stored | None = Field(description="what lies in the store; null when it is not collected yet")


def trace_lines(traced: Traced) -> Iterator[str]:
    """What a person reads of it, one fact a line."""
    place, text, stored = traced.place, traced.text, traced.stored
    yield f"Row {traced.row:,}"
    yield f"  Text      {visible(text.before)}»{visible(text.marked)}«{visible(text.after)}"
    yield f"  Token     {text.token}"
    if traced.document is None or traced.offset is None:
        yield "  Document  none: the token begins a context"
    else:
        yield f"  Document  {visible(traced.document)} ({traced.corpus}), token {traced.offset:,}"
    yield f"  Place     shard {place.shard}, row {place.shard_row:,}: context {place.context:,}, token {place.position}"
    yield f"  Block     shard {place.shard}, part {place.part}, block {place.block}, row {place.block_row}"
    yield f"  Flags     {', '.join(name for bit, name in _FLAGS.items() if traced.flags & bit) or 'none'}"
    if stored is None:
        yield "  Stored    not yet: `kubesae collect` goes on from what is committed"
        return
    yield f"  Stored    layer {stored.layer}: sample {stored.block} of {stored.tar}"
    if stored.norm is not None:
        yield f"  Norm      {stored.norm:.4g}"
