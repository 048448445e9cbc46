"""Features above a fixed threshold: how SAEs are used whose training compares rows, or trains thresholds.

    f = z where z > threshold_i, else 0

JumpReLU trains theta_i = exp(t_i) itself. A gated SAE has f = ReLU(z) where its gate is open, with

    z = exp(r) p + b_mag,    gate = p + b_gate > 0,    p = W_enc (x - b_dec)

and p > -b_gate is z > b_mag - exp(r) b_gate: a threshold of max(0, b_mag - exp(r) b_gate) on z.

The threshold of BatchTopK is solved: the one for which validation rows have k active features on average. Estimates
from the batches of training (a running mean of their cutoffs, say) are off by several percent, more after few steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.encoder import SlicedEncoder
from kubesae.sae.shard import WHOLE
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.kernels import Code
    from kubesae.sae.shard import Reduce, Shard

# Bins hold values with the same first bits of their float32: 2^12 bins an octave of values, so a bin is 0.02% wide.
_DROPPED_BITS = 11
_BINS = 1 << (31 - _DROPPED_BITS)


def encode(x_centred_BD: Tensor, weights: Weights, threshold_F: Tensor, dtype: torch.dtype) -> Code:
    """Return the code of x - b_dec, multiplied in `dtype`; thresholds [F] are 0 or more."""
    return SlicedEncoder(weights, dtype, x_centred_BD.device).above(x_centred_BD, threshold_F)


def in_use(weights: Weights, solved: float | None = None) -> tuple[Weights, Tensor | None]:
    """Return the four tensors of the SAE to use and its thresholds [F], in the units of `weights`.

    `solved` is the one threshold of an architecture whose threshold is not trained.
    """
    W_enc_FD, b_enc_F = weights.W_enc_FD, weights.b_enc_F
    threshold_F = None if solved is None else torch.full_like(b_enc_F, solved)
    if weights.log_threshold_F is not None:
        threshold_F = weights.log_threshold_F.exp()
    if weights.r_mag_F is not None and weights.b_gate_F is not None:
        gain_F = weights.r_mag_F.exp()
        W_enc_FD = W_enc_FD * gain_F[:, None]
        threshold_F = (b_enc_F - gain_F * weights.b_gate_F).clamp_min(0)
    return Weights(W_enc_FD, b_enc_F, weights.W_dec_FD, weights.b_dec_D), threshold_F


class ThresholdSearch:
    """Counts how often z has which value, over rows that come bit by bit; sums over ranks are those of all rows."""

    def __init__(self, device: torch.device) -> None:
        """Count nothing yet."""
        self._counts = torch.zeros(_BINS, dtype=torch.int64, device=device)
        self._rows = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, x_centred_BD: Tensor, weights: Weights) -> None:
        """Take in rows, multiplied in float32 as an SAE in use does."""
        for z_BF in SlicedEncoder(weights, torch.float32, x_centred_BD.device).slices(x_centred_BD):
            bits = z_BF[z_BF > 0].view(torch.int32) >> _DROPPED_BITS
            self._counts += torch.bincount(bits, minlength=_BINS)
        self._rows += len(x_centred_BD)

    def solve(self, l0: float, reduce: Reduce, shard: Shard = WHOLE) -> float:
        """Return the threshold at which the rows have `l0` active features on average; 0.0 where they never have.

        `reduce` sums over all ranks, of which this one's z were of the features of `shard`.
        """
        counts, rows = reduce(self._counts), int(reduce(shard.once(self._rows)))
        above = counts.flip(0).cumsum(0).flip(0)
        wanted = (above >= l0 * rows).nonzero()
        if rows == 0 or len(wanted) == 0:
            return 0.0
        edge = int(wanted.max()) << _DROPPED_BITS
        return float(torch.tensor([edge], dtype=torch.int32).view(torch.float32))
