"""Every kind of damage by its one name: what verify reports, what repair acts on, what the documents list.

A name is part of the report's format: it is never changed, and never used for anything else.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from kubesae.experiment import Section


class Damage(StrEnum):
    """Kinds of damage. The comment says what is not as it should be; `Finding.key` is the object that is named."""

    # Records
    MISSING_RECORD = "missing record"  # the plan has the part, the ledger does not
    UNREADABLE_RECORD = "unreadable record"  # no commit record at all
    ALTERED_RECORD = "altered record"  # a record, but not in the one form that records are written in
    FORGED_RECORD = "forged record"  # of another data identity
    MISPLACED_RECORD = "misplaced record"  # another part's record under this part's key: doubled or reordered
    FOREIGN_RECORD = "foreign record"  # of a part that the plan does not have
    WRONG_ROW_COUNT = "wrong row count"
    WRONG_TOKENS = "wrong tokens"  # of a record: their digest; of a tar: the ids themselves
    WRONG_LAYERS = "wrong layers"
    WRONG_BLOCKS = "wrong blocks"  # the offsets do not fit plan and size
    WRONG_FLAG_COUNTS = "wrong flag counts"
    FOREIGN_TAR = "foreign tar"  # the record names a tar that is not this part's, or not named by its digest
    FOREIGN_MOMENTS = "foreign moments"  # the same of a moments file

    # Tars: the bytes are not those of the record
    MISSING_TAR = "missing tar"
    TRUNCATED_TAR = "truncated tar"
    SWAPPED_TAR = "swapped tar"  # the bytes of another tar of the store
    CHANGED_TAR = "changed tar"

    # Tars: they are, but the content is wrong
    MALFORMED_TAR = "malformed tar"
    WRONG_BLOCK = "wrong block"
    WRONG_SHAPE = "wrong shape"
    WRONG_DOCUMENTS = "wrong documents"
    UNKNOWN_TOKEN = "unknown token"  # noqa: S105 - outside the vocabulary
    NOT_FINITE = "not finite"
    WRONG_FLAGS = "wrong flags"

    # Moments
    MISSING_MOMENTS = "missing moments"
    CHANGED_MOMENTS = "changed moments"  # not the bytes of the record
    WRONG_MOMENTS = "wrong moments"  # these bytes, but not the moments of the tar (or, merged, of the parts)

    # Tokens, and what verify writes itself
    MISSING_TOKENS = "missing tokens"
    DAMAGED_TOKENS = "damaged tokens"
    DAMAGED_INDEX = "damaged index"  # the index or a list of URLs names other tars than the records


# Of these the record is no part: it names the right bytes, and they are lost.
LOST_BYTES = frozenset(
    {
        Damage.MISSING_TAR,
        Damage.TRUNCATED_TAR,
        Damage.SWAPPED_TAR,
        Damage.CHANGED_TAR,
        Damage.MISSING_MOMENTS,
        Damage.CHANGED_MOMENTS,
    }
)


class Finding(Section):
    """One thing that is not right."""

    kind: Damage = Field(description="what kind of damage")
    key: str = Field(description="key of the object")
    detail: str = Field(description="what is wrong with it")
    shard: int | None = Field(None, description="shard of the part that it belongs to, if to one")
    part: int | None = Field(None, description="that part")

    def order(self) -> tuple[str, ...]:
        """Where it comes in a report: by key, then kind, then all else."""
        return self.key, self.kind, self.detail, str(self.shard), str(self.part)
