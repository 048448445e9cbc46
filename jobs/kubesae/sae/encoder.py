"""The encoder's product, the only one that is ever dense: a slice at a time.

B = rows, D = d_model, F = features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import Code, code_above

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from kubesae.sae.weights import Weights

# The encoder's output is made and searched in slices of this many numbers: they stay in the cache of a CPU core.
_SLICE = 1 << 20
# With fewer rows a slice is slow: its product takes as long for reading the encoder as for multiplying. So many of
# bfloat16; a wider encoder has more bytes to read, and slices as many rows more.
_SLICE_ROWS = 512
# On an accelerator a slice only bounds memory.
_SLICE_DEVICE = 1 << 29


class SlicedEncoder:
    """z = W_enc (x - b_dec) + b_enc, multiplied in `dtype`, a slice of the rows at a time: z is never whole."""

    def __init__(self, weights: Weights, dtype: torch.dtype, device: torch.device) -> None:
        """Convert the weights once."""
        features = len(weights.b_enc_F)
        self._W_DF = weights.W_enc_FD.to(dtype).T
        self._b_F = weights.b_enc_F.to(dtype)
        cached = max(_SLICE_ROWS * dtype.itemsize // torch.bfloat16.itemsize, _SLICE // features)
        self._rows = cached if device.type == "cpu" else max(1, _SLICE_DEVICE // features)

    def slices(self, x_centred_BD: Tensor) -> Iterator[Tensor]:
        """Iterate over z of x - b_dec."""
        for rows in x_centred_BD.split(self._rows):
            yield torch.addmm(self._b_F, rows.to(self._W_DF.dtype), self._W_DF)

    def above(self, x_centred_BD: Tensor, floor: float | Tensor) -> Code:
        """Return the entries above `floor`, one for all or [F], as a code with values in the dtype of the rows."""
        return Code.joined([code_above(z_BF, floor, x_centred_BD.dtype) for z_BF in self.slices(x_centred_BD)])
