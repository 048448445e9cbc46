"""TopK SAE with AuxK (Gao et al. 2024, arXiv 2406.04093, section 2.3 and appendix A.2).

B = rows, D = d_model, F = features, A = dead features, K = k.

    z     = W_enc (x - b_dec) + b_enc
    f     = ReLU(the k largest of z, others 0)                 ties: the lower feature number (kernels.top_k)
    x_hat = f W_dec + b_dec                                    rows of W_dec have norm 1
    loss  = mean over rows and dimensions of (x - x_hat)^2  +  auxk

AuxK revives features that have not been active for a while. They reconstruct what is left over:

    e     = x - x_hat, a constant (no gradient flows into it)
    e_hat = ReLU(the k_aux largest of z among dead features) W_dec       without b_dec: e has no bias to add
    auxk  = coefficient * min(dead / k_aux, 1) * sum |e - e_hat|^2 / sum |e - mean e|^2        0 where that is 0 / 0

Inputs are normalised so that the mean of (x - mean)^2 is 1 in each dimension, so the first term is the fraction of
variance unexplained, in whose units the paper gives its coefficient of 1/32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kubesae.sae.kernels import Code, decode, product, top_k, top_k_code
from kubesae.sae.step import Step, fired, sparse_gradients

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.step import Reduce
    from kubesae.sae.weights import Weights

# The encoder's output is made and searched in slices of this many numbers: they stay in the cache of a CPU core.
_SLICE = 1 << 20
# On an accelerator a slice only bounds memory.
_SLICE_DEVICE = 1 << 29


@dataclass(frozen=True, slots=True)
class AuxK:
    """Settings of the auxiliary loss. `dead_A`: int64 numbers of the features that count as dead."""

    coefficient: float
    dead_A: Tensor


def k_aux(d_model: int) -> int:
    """Return how many dead features take part for each row: the power of two nearest to d_model / 2 (appendix A.2)."""
    half = max(1, d_model // 2)
    below = 1 << (half.bit_length() - 1)
    return below if half - below <= 2 * below - half else 2 * below


def encode(x_centred_BD: Tensor, weights: Weights, k: int, dtype: torch.dtype) -> Code:
    """Return the code of x - b_dec, multiplied in `dtype`: exactly k entries a row, some of which may be 0."""
    W_DF = weights.W_enc_FD.to(dtype).T
    b_F = weights.b_enc_F.to(dtype)
    limit = _SLICE if x_centred_BD.device.type == "cpu" else _SLICE_DEVICE
    slices = x_centred_BD.split(max(1, limit // W_DF.shape[1]))
    codes = [top_k_code(torch.addmm(b_F, rows.to(dtype), W_DF), k) for rows in slices]
    entries = len(x_centred_BD) * k
    return Code(
        torch.arange(0, entries + 1, k, device=W_DF.device),
        torch.cat([code.features_N for code in codes]),
        torch.cat([code.values_N for code in codes]).to(x_centred_BD.dtype),
    )


def loss_and_gradients(
    x_BD: Tensor,
    weights: Weights,
    k: int,
    auxk: AuxK,
    *,
    total_rows: int,
    dtype: torch.dtype,
    reduce: Reduce = lambda tensor: tensor,
) -> Step:
    """Forward and backward of one batch, by hand; only the encoder's forward product is dense.

    Args:
        x_BD: normalised activations of this rank.
        weights: in float32 (float64 for oracles).
        k: active features of a row.
        auxk: the auxiliary loss; nothing is computed when its coefficient is 0 or no feature is dead.
        total_rows: rows of the batch over all ranks.
        dtype: of dense products.
        reduce: sums a tensor over all ranks.

    """
    x_centred_BD = x_BD - weights.b_dec_D
    code = encode(x_centred_BD, weights, k, dtype)
    e_BD = x_centred_BD - decode(code, weights.W_dec_FD)
    squared_error = e_BD.square().sum()
    scale = 1 / (total_rows * x_BD.shape[1])
    gradients = sparse_gradients(code, x_centred_BD, e_BD * (-2 * scale), weights)
    loss = squared_error * scale
    if auxk.coefficient > 0 and len(auxk.dead_A) > 0:
        loss = loss + _add_auxk(gradients, x_centred_BD, e_BD, weights, auxk, total_rows, dtype, reduce)
    return Step(gradients, loss, squared_error, (code.values_N > 0).sum(), fired(code, len(weights.b_enc_F)))


def _add_auxk(
    gradients: Weights,
    x_centred_BD: Tensor,
    e_BD: Tensor,
    weights: Weights,
    auxk: AuxK,
    total_rows: int,
    dtype: torch.dtype,
    reduce: Reduce,
) -> Tensor:
    """Add the gradients of the auxiliary loss to `gradients`, in place, and return this rank's share of the loss.

    k_aux is large (half of d_model), so the products over the dead features are dense.
    """
    dead_A, wanted = auxk.dead_A, k_aux(x_centred_BD.shape[1])
    W_enc_AD, W_dec_AD = weights.W_enc_FD[dead_A], weights.W_dec_FD[dead_A]
    z_BA = product(x_centred_BD, W_enc_AD.T, dtype) + weights.b_enc_F[dead_A]
    f_BA = z_BA.relu() if len(dead_A) <= wanted else _keep_top(z_BA, wanted)
    left_BD = e_BD - product(f_BA, W_dec_AD, dtype)

    # the sum of squares about the mean, over all ranks
    totals = reduce(torch.cat([e_BD.sum(0), e_BD.square().sum().reshape(1)]).double())
    variance = totals[-1] - totals[:-1].square().sum() / total_rows
    weight = auxk.coefficient * min(len(dead_A) / wanted, 1.0) / variance
    weight = torch.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0).to(e_BD.dtype)

    g_BD = left_BD * (-2 * weight)
    dz_BA = product(g_BD, W_dec_AD.T, dtype) * (f_BA > 0)
    db_A = dz_BA.sum(0)
    gradients.W_dec_FD[dead_A] += product(f_BA.T, g_BD, dtype)
    gradients.W_enc_FD[dead_A] += product(dz_BA.T, x_centred_BD, dtype)
    gradients.b_enc_F[dead_A] += db_A
    gradients.b_dec_D.sub_(db_A @ W_enc_AD)
    return weight * left_BD.square().sum()


def _keep_top(z_BA: Tensor, k: int) -> Tensor:
    values_BK, kept_BK = top_k(z_BA, k)
    return torch.zeros_like(z_BA).scatter_(1, kept_BK.long(), values_BK)


def project_decoder_gradient(gradients: Weights, weights: Weights) -> None:
    """Remove from the decoder's gradient, in place, the part along each row: it would only change the row's norm.

    Before Adam, so that its moments do not fill with directions that the norm constraint undoes.
    """
    along_F = torch.linalg.vecdot(gradients.W_dec_FD, weights.W_dec_FD)
    gradients.W_dec_FD.addcmul_(weights.W_dec_FD, along_F[:, None], value=-1)


def normalise_decoder(weights: Weights) -> None:
    """Give every row of the decoder norm 1, in place. After the optimiser's step, which leaves the sphere."""
    weights.W_dec_FD.div_(torch.linalg.vector_norm(weights.W_dec_FD, dim=1, keepdim=True))
