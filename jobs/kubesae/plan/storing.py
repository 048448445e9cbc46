"""What is stored and what moves: bytes, objects, requests.

Sizes of tars are those of `shards.layout`, to the byte but for each block's list of documents, whose length is not
known before the corpus is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from kubesae.plan.cost import order_of
from kubesae.plan.prices import GB
from kubesae.plan.report import Data
from kubesae.shards import codec
from kubesae.shards.layout import END_OF_ARCHIVE, TAR_BLOCK, array_bytes
from kubesae.store.store import MAX_PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.experiment import Sae
    from kubesae.ledger import Part, Plan
    from kubesae.plan.assumptions import Assumptions
    from kubesae.plan.work import Work

_DOCUMENTS = 2 * TAR_BLOCK
"""bytes of a block's list of documents with its header, where it names a few"""
_READ = 32 << 20
"""bytes that one ranged read of a block takes at most"""
_RECORD, _RECORD_LAYER, _RECORD_BLOCK = 500, 400, 12
"""bytes of a commit record: its own fields, those of a layer, an offset of a block"""
_MOMENTS = 4096
"""bytes of a part's moments beside two float64 a dimension"""


def upload_rate(work: Work, assumptions: Assumptions) -> float:
    """Return tokens a second that a slot's way to the store takes."""
    return assumptions.upload_gb_s * GB / work.row_bytes


def tar_bytes(plan: Plan, part: Part, d_model: int, storage: str) -> int:
    """Return bytes of the tar of one part and layer."""
    size = END_OF_ARCHIVE
    for rows, count in Counter(block.rows for block in plan.blocks(part)).items():
        activations = codec(storage).arrays(rows, d_model).values()
        arrays = (*activations, (np.dtype("<u4"), (rows,)), (np.dtype("u1"), (rows,)))
        size += count * (sum(array_bytes(dtype, shape) for dtype, shape in arrays) + _DOCUMENTS)
    return size


def kinds_of_parts(plan: Plan) -> Iterator[tuple[Part, int]]:
    """Yield parts that differ in size, each with how many there are: whole ones, and the last ones of the shards."""
    found: Counter[int] = Counter()
    example: dict[int, Part] = {}
    for shard in range(plan.num_shards):
        last = plan.parts(shard) - 1
        for index, count in ((0, last), (last, 1)):
            if count:
                part = plan.part(shard, index)
                found[part.rows] += count
                example[part.rows] = part
    for rows, count in found.items():
        yield example[rows], count


def stored(work: Work, tokens_per_second: float) -> Data:
    """Return what the whole experiment stores, writes and reads, while `tokens_per_second` are collected."""
    experiment, plan, layers = work.experiment, work.plan, len(work.experiment.layers)
    tars = moments = records = blocks = parts = 0
    for part, count in kinds_of_parts(plan):
        of_part = len(plan.blocks(part))
        parts += count
        blocks += count * of_part
        tars += count * layers * tar_bytes(plan, part, work.shape.d_model, experiment.storage)
        moments += count * layers * (16 * work.shape.d_model + _MOMENTS)
        records += count * (_RECORD + layers * (_RECORD_LAYER + _RECORD_BLOCK * of_part))
    objects = parts * (2 * layers + 1) + 2 * plan.num_shards + layers + 6
    pilot = plan.rows_before(0, plan.pilot_parts(experiment.pilot.tokens))
    passes = list(_passes(experiment.sae))
    read_share = [sae.epochs * min(1.0, (sae.max_tokens or plan.tokens) / plan.tokens) for sae in passes]
    block_bytes = plan.tokens * work.row_bytes / layers / blocks
    reads = sum(share * blocks * max(1, -(-block_bytes // _READ)) for share in read_share)
    pilot_reads = 2 * layers * plan.pilot_parts(experiment.pilot.tokens)
    return Data(
        bytes_per_token=work.row_bytes,
        activation_bytes=plan.tokens * work.row_bytes,
        stored_bytes=tars + moments + records + 4 * plan.tokens,
        pilot_bytes=pilot * work.row_bytes,
        objects=objects,
        write_requests=objects + 2 * -(-objects // MAX_PAGE),
        read_requests=int(reads + pilot_reads),
        read_bytes=int(sum(read_share) * plan.tokens * work.row_bytes / layers),
        bytes_per_second=tokens_per_second * work.row_bytes,
    )


def _passes(saes: tuple[Sae, ...]) -> Iterator[Sae]:
    """Yield one SAE of each pass over the data: those that want the same rows in the same order share it."""
    seen = set()
    for sae in saes:
        if (order := order_of(sae)) not in seen:
            seen.add(order)
            yield sae
