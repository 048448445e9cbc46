"""Which blocks are kept for validation: the same for every SAE of the data, fixed before anything is trained.

The choice is a hash, so it depends neither on the order of the blocks nor on how many workers read them, and whole
contexts stay on one side.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.shards.index import BlockRef

LEAST = 2


def split_blocks(
    identity_sha256: str, blocks: Sequence[BlockRef], share: float
) -> tuple[list[BlockRef], list[BlockRef]]:
    """Return (blocks to train on, blocks to validate on), each in the order of `blocks`.

    Validation gets the ceil(`share` of all), but at least 2, with the smallest SHA-256 of `<identity>/<sample key>`.
    """
    count = max(LEAST, math.ceil(share * len(blocks)))
    by_hash = sorted(blocks, key=lambda block: hashlib.sha256(f"{identity_sha256}/{block.key}".encode()).digest())
    kept = {block.key for block in by_hash[:count]}
    return [block for block in blocks if block.key not in kept], [block for block in blocks if block.key in kept]
