"""Which tokens a feature's direction raises and lowers most: the logit lens, through the model's final norm and head.

The layers between the SAE's and the last one are left out: what they make of the direction is not seen. Features of
late layers are described well by this, those of early ones hardly.

F = features, D = d_model, V = vocabulary, B = features of a block, K = tokens kept of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from kubesae.features.answers import LOGITS
from kubesae.interpret.answers.largest import largest
from kubesae.interpret.answers.lists import lists

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.model.head import Head

MOST = 10
_BLOCK = 1 << 24
"""logits in memory at a time"""


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
    columns: dict[str, list[np.ndarray]] = {name: [] for name in LOGITS.names[1:]}
    blocks = W_dec_FD.split(max(1, block // head.vocab_size))
    out_BV = W_dec_FD.new_empty(len(blocks[0]), kept)
    for direction_BD in blocks:
        effect_BV = head.effect(direction_BD, out_BV[: len(direction_BD)])
        for name, sign in (("high", 1), ("low", -1)):
            value_BK, token_BK = largest(effect_BV, most)
            columns[f"{name}_tokens"].append(token_BK.cpu().numpy())
            columns[f"{name}_values"].append(sign * value_BK.cpu().numpy())
            effect_BV.neg_()
    width = np.full(features, min(most, kept))
    made = {
        name: lists(np.concatenate(parts).ravel(), width, LOGITS.field(name).type.value_type)
        for name, parts in columns.items()
    }
    return pa.table({"feature": np.arange(features, dtype=np.int32), **made}).cast(LOGITS)
