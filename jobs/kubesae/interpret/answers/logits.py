"""Which tokens a feature's direction raises and lowers most: the logit lens, through the model's final norm and head.

The layers between the SAE's and the last one are left out: what they make of the direction is not seen. Features of
late layers are described well by this, those of early ones hardly.

F = features, D = d_model, B = features of a block, T = tokens of a tile, K = tokens kept of each, N = of all tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from kubesae.features.answers import LOGITS
from kubesae.interpret.answers.largest import largest
from kubesae.interpret.answers.lists import lists

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.model.head import Head

MOST = 10
_BLOCK = 1 << 24
"""logits in memory at a time"""
_TOKENS = 1 << 12
"""of a tile: a wide product of few features takes a third longer than many narrow ones of many"""


def logits_table(
    head: Head, W_dec_FD: Tensor, most: int = MOST, block: int = _BLOCK, tokens: int | None = None
) -> pa.Table:
    """Return the `most` tokens that each feature raises, and lowers, with its effect on them; ties by token id.

    Args:
        head: of the model.
        W_dec_FD: decoder, float32 [F, D].
        most: tokens of each kind.
        block: logits in memory at a time, 4 bytes each.
        tokens: ids that the tokenizer has; models' heads may have more, which mean nothing. None: all of the head's.

    """
    features = len(W_dec_FD)
    kept = head.vocab_size if tokens is None else min(tokens, head.vocab_size)
    tile = min(kept, _TOKENS, block)
    tiles = [slice(first, min(first + tile, kept)) for first in range(0, kept, tile)]
    blocks = -(-features // max(1, block // tile))
    found = [_ends(head, direction_BD, tiles, most) for direction_BD in W_dec_FD.chunk(blocks)]
    width = np.full(features, min(most, kept))
    made = {
        name: lists(torch.cat(parts).cpu().numpy().ravel(), width, LOGITS.field(name).type.value_type)
        for name, parts in zip(LOGITS.names[1:], zip(*found, strict=True), strict=True)
    }
    return pa.table({"feature": np.arange(features, dtype=np.int32), **made}).cast(LOGITS)


def _ends(head: Head, direction_BD: Tensor, tiles: list[slice], most: int) -> list[Tensor]:
    """Return tokens and effects of the largest, then of the smallest, all [B, K]; `tiles` are in the order of ids."""
    found: dict[int, list[tuple[Tensor, Tensor]]] = {1: [], -1: []}
    for tile in tiles:
        effect_BT = head.effect(direction_BD, tile)
        for sign, parts in found.items():  # the largest first: then the effects are turned over
            value_BK, token_BK = largest(effect_BT if sign > 0 else effect_BT.neg_(), most)
            parts.append((value_BK, token_BK + tile.start))
    ends = []
    for sign, parts in found.items():
        value_BN, token_BN = (torch.cat(one, 1) for one in zip(*parts, strict=True))
        value_BN, order_BN = value_BN.sort(dim=1, descending=True, stable=True)
        ends += [token_BN.gather(1, order_BN)[:, :most], sign * value_BN[:, :most]]
    return ends
