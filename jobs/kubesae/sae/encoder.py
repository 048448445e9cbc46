"""The encoder's product, the only one that is ever dense: a slice at a time, in an order that `top_k` searches fast.

B = rows, D = d_model, F = features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import Code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kubesae.sae.weights import Weights

# The encoder's output is made and searched in slices of this many numbers: they stay in the cache of a CPU core.
_SLICE = 1 << 20
# With fewer rows a slice is slow: its product takes as long for reading the encoder as for multiplying.
_SLICE_ROWS = 256
# On an accelerator a slice only bounds memory.
_SLICE_DEVICE = 1 << 29
# Groups of features that `top_k` looks at as one.
_GROUP = 8


class SlicedEncoder:
    """z = W_enc (x - b_dec) + b_enc, multiplied in `dtype`, a slice of the rows at a time: z is never whole.

    With G `groups` of neighbouring features, F / G groups of G, column j * (F / G) + c of z is feature c * G + j: the
    first features of all groups come first, so that maxima of groups are maxima of whole rows of memory.
    """

    def __init__(self, weights: Weights, dtype: torch.dtype, device: torch.device, groups: int = 1) -> None:
        """Convert the weights once."""
        self.features = len(weights.b_enc_F)
        self._W_DF = _grouped(weights.W_enc_FD, groups, dtype).T
        self._b_F = _grouped(weights.b_enc_F, groups, dtype)
        cached = max(_SLICE_ROWS, _SLICE // self.features)
        self._rows = cached if device.type == "cpu" else max(1, _SLICE_DEVICE // self.features)

    def slices(self, x_centred_BD: Tensor) -> Iterator[Tensor]:
        """Iterate over z of x - b_dec."""
        for rows in x_centred_BD.split(self._rows):
            yield torch.addmm(self._b_F, rows.to(self._W_DF.dtype), self._W_DF)

    def above(self, x_centred_BD: Tensor, floor: float | Tensor) -> Code:
        """Return the entries above `floor`, one for all or [F], as a code with values in the dtype of the rows."""
        return Code.joined([Code.of(z_BF, z_BF > floor, x_centred_BD.dtype) for z_BF in self.slices(x_centred_BD)])


def _grouped(tensor: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """Return [F, ...] in the order of a grouped z's columns, in `dtype`."""
    if groups == 1:
        return tensor.to(dtype)
    ordered = tensor.unflatten(0, (-1, groups)).transpose(0, 1)
    made: Tensor = torch.empty(ordered.shape, dtype=dtype, device=tensor.device).copy_(ordered).flatten(0, 1)
    return made


def group_size(features: int, k: int, dtype: torch.dtype) -> int:
    """Return the size of the groups that make `top_k` of so many features fast; 1: none do."""
    worth = features % _GROUP == 0 and features // _GROUP >= 2 * k and dtype in {torch.bfloat16, torch.float32}
    return _GROUP if worth else 1
