"""What a fetch leaves beside a model's files: `model.fetched`, which says that they are whole, and their digests.

It has no ending that counts for the model's identity: a fetched model is the same model. It is there, not complete,
from the first file on, so that a later fetch from elsewhere knows that these files are not of its source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kubesae.errors import MissingError
from kubesae.experiment import Section, canonical_json, parse_json_object, validate

if TYPE_CHECKING:
    import builtins  # FileNote.bytes hides the type

    from kubesae.store import Store

NOTE = "model.fetched"


class FileNote(Section):
    """What is known of a file."""

    bytes: int = Field(description="its size")
    sha256: str | None = Field(description="its digest, null where the source does not tell it and it is not read yet")


class Note(Section):
    """`model.fetched`."""

    format: Literal[1] = Field(1, description="version of the note")
    source: str = Field(description="where the files came from: a hub id, a URL, or a folder's name")
    asked: str | None = Field(description="revision that was asked for")
    revision: str | None = Field(description="commit of the hub")
    complete: bool = Field(description="whether all files are there")
    files: dict[str, FileNote] = Field(description="the files by name")

    def to_json(self) -> builtins.bytes:
        """Return the note's bytes."""
        return canonical_json(self.model_dump(mode="json"))


def read_note(store: Store) -> Note | None:
    """Return the note of the model in `store`; None where there is none."""
    try:
        data = store.read(NOTE)
    except MissingError:
        return None
    return validate(Note, parse_json_object(data, store.url_of(NOTE)), store.url_of(NOTE))
