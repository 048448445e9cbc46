"""BatchTopK SAE (Bussmann, Leask and Nanda 2024, arXiv 2412.06410), with AuxK.

B = rows of this rank, D = d_model, F = features, N = candidates.

    z      = W_enc (x - b_dec) + b_enc
    cutoff = the (k * rows)-th largest positive z of the whole batch, of all ranks
    f      = z where z >= cutoff and z > 0, else 0             ties at the cutoff all stay, on any number of ranks
    x_hat  = f W_dec + b_dec                                   rows of W_dec have norm 1
    loss   = mean over rows and dimensions of (x - x_hat)^2  +  auxk        (auxk.py)

A row takes as many features as it needs, k on average. What one row gets depends on the others, so an SAE in use has a
fixed threshold in place of the cutoff: the one that gives an L0 of k on validation rows (threshold.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.encoder import SlicedEncoder
from kubesae.sae.step import sparse_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.sae.auxk import AuxK
    from kubesae.sae.kernels import Code
    from kubesae.sae.shard import Reduce
    from kubesae.sae.step import Batch, Step
    from kubesae.sae.weights import Weights

# The floor below which nothing is looked at is where some rows have this many times the wanted entries.
_MARGIN = 2
_SAMPLE_ROWS = 16
_DIGIT_BITS = 8


def loss_and_gradients(
    x_BD: Tensor, weights: Weights, k: int, auxk: AuxK, batch: Batch, prefixes: Sequence[int] | None = None
) -> tuple[Step, float]:
    """Forward and backward of one batch, and the cutoff; see `topk.loss_and_gradients` and `sparse_step`."""
    x_centred_BD = x_BD - weights.b_dec_D
    code, cutoff = encode(x_centred_BD, weights, k, batch)
    return sparse_step(code, x_centred_BD, weights, auxk, batch, prefixes), cutoff


def encode(x_centred_BD: Tensor, weights: Weights, k: int, batch: Batch) -> tuple[Code, float]:
    """Return the code of x - b_dec, and the cutoff; 0 where fewer than k entries a row are positive."""
    encoder = SlicedEncoder(weights, batch.dtype, x_centred_BD.device)
    wanted = k * batch.total_rows
    floor = _common_floor(x_centred_BD, encoder, k, batch)
    code = encoder.above(x_centred_BD, floor)
    if floor > 0 and int(batch.reduce(torch.tensor(len(code.values_N)))) < wanted:  # the sample was not like the rest
        code = encoder.above(x_centred_BD, 0.0)
    cutoff = kth_largest(code.values_N, wanted, batch.reduce)
    return code.at_least(cutoff), cutoff


def _common_floor(x_centred_BD: Tensor, encoder: SlicedEncoder, k: int, batch: Batch) -> float:
    """Return a value, the same for all ranks, that is likely below the cutoff and above most entries.

    It saves work and decides nothing: what it cuts off too much is looked for again.
    """
    floor = 0.0
    if len(x_centred_BD):
        sample_SD = x_centred_BD[:: -(-len(x_centred_BD) // _SAMPLE_ROWS)]
        z = torch.cat([z_SF.flatten() for z_SF in encoder.slices(sample_SD)]).relu()
        wanted = -(-_MARGIN * k * len(sample_SD) // batch.shard.count)
        floor = float(z.topk(min(len(z), wanted)).values[-1])
    total, ranks = batch.reduce(torch.tensor([floor, 1.0], dtype=torch.float64)).tolist()
    return float(total / ranks)


def kth_largest(values_N: Tensor, k: int, reduce: Reduce) -> float:
    """Return the k-th largest of the positive `values_N` of all ranks, exactly; 0.0 where there are fewer.

    A radix search: the bits of positive floats order like integers, and each round finds eight more of them by counts,
    which is all that ranks have to sum.
    """
    as_int, bits = (torch.int64, 64) if values_N.dtype == torch.float64 else (torch.int32, 32)
    exact = values_N if values_N.dtype == torch.float64 else values_N.float()
    left_N, found = exact.view(as_int), 0
    for shift in range(bits - _DIGIT_BITS, -1, -_DIGIT_BITS):
        digits_N = (left_N >> shift) & ((1 << _DIGIT_BITS) - 1)
        counts = reduce(torch.bincount(digits_N, minlength=1 << _DIGIT_BITS).cpu())
        at_least = counts.flip(0).cumsum(0).flip(0)
        if int(at_least[0]) < k:
            return 0.0
        digit = int((at_least >= k).nonzero().max())
        k -= int(at_least[digit] - counts[digit])
        found = (found << _DIGIT_BITS) | digit
        left_N = left_N[digits_N == digit]
    return float(torch.tensor([found], dtype=as_int).view(exact.dtype))
