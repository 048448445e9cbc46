"""What can be removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubesae.store import ObjectInfo, OpenUpload


@dataclass(frozen=True)
class Garbage:
    """What can go.

    Attributes:
        objects: orphans and left-over shares, by key.
        uploads: open uploads.
        waiting: keys of tars and moments of parts without a record, or with one that is not right: not removed.

    """

    objects: dict[str, ObjectInfo]
    uploads: list[OpenUpload]
    waiting: list[str]

    @property
    def bytes(self) -> int:
        """How much space it takes."""
        return sum(info.size for info in self.objects.values()) + sum(upload.size for upload in self.uploads)
