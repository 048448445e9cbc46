"""TopK SAE with AuxK (Gao et al. 2024, arXiv 2406.04093, section 2.3 and appendix A.2).

B = rows, D = d_model, F = features, K = k.

    z     = W_enc (x - b_dec) + b_enc
    f     = ReLU(the k largest of z, others 0)                 ties: the lower feature number (kernels.top_k)
    x_hat = f W_dec + b_dec                                    rows of W_dec have norm 1
    loss  = mean over rows and dimensions of (x - x_hat)^2  +  auxk        (auxk.py)

Inputs are normalised so that the mean of (x - mean)^2 is 1 in each dimension, so the first term is the fraction of
variance unexplained, in whose units the paper gives its coefficient of 1/32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.encoder import SlicedEncoder
from kubesae.sae.kernels import Code, top_k_code
from kubesae.sae.shard import WHOLE, Shard
from kubesae.sae.step import sparse_step

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.auxk import AuxK
    from kubesae.sae.step import Batch, Step
    from kubesae.sae.weights import Weights


def encode(x_centred_BD: Tensor, weights: Weights, k: int, dtype: torch.dtype, shard: Shard = WHOLE) -> Code:
    """Return the code of x - b_dec, multiplied in `dtype`: exactly k entries a row, some of which may be 0.

    On a shard: those of the k entries that are of its features.
    """
    encoder = SlicedEncoder(weights, dtype, x_centred_BD.device)
    candidates = min(k, len(weights.b_enc_F))
    codes = [top_k_code(z_BF, candidates) for z_BF in encoder.slices(x_centred_BD)]
    entries = len(x_centred_BD) * candidates
    code = Code(
        torch.arange(0, entries + 1, candidates, device=x_centred_BD.device),
        torch.cat([code.features_N for code in codes]),
        torch.cat([code.values_N for code in codes]).to(x_centred_BD.dtype),
    )
    return code if shard.count == 1 else _among_all(code, candidates, k, shard)


def _among_all(code: Code, candidates: int, k: int, shard: Shard) -> Code:
    """Return the entries of a shard's code, `candidates` a row, that are among the k largest of all features."""
    features_BC, order_BC = code.features_N.view(-1, candidates).sort(dim=1)
    values_BC = code.values_N.view(-1, candidates).gather(1, order_BC)
    kept_N = shard.among_largest(values_BC, k).flatten()
    return Code(code.offsets_B1, features_BC.flatten(), values_BC.flatten()).where(kept_N)


def loss_and_gradients(x_BD: Tensor, weights: Weights, k: int, auxk: AuxK, batch: Batch) -> Step:
    """Forward and backward of one batch, by hand; only the encoder's forward product is dense.

    Args:
        x_BD: normalised activations of this rank.
        weights: in float32 (float64 for oracles).
        k: active features of a row.
        auxk: the auxiliary loss.
        batch: what the rows are a share of.

    """
    x_centred_BD = x_BD - weights.b_dec_D
    code = encode(x_centred_BD, weights, k, batch.dtype, batch.shard)
    return sparse_step(code, x_centred_BD, weights, auxk, batch)
