"""AuxK: dead features reconstruct what is left over (Gao et al. 2024, arXiv 2406.04093, section 2.4 and appendix A.2).

B = rows, D = d_model, A = dead features.

    e     = x - x_hat, a constant (no gradient flows into it)
    e_hat = ReLU(the k_aux largest of z among dead features) W_dec       without b_dec: e has no bias to add
    auxk  = coefficient * min(dead / k_aux, 1) * sum |e - e_hat|^2 / sum |e - mean e|^2        0 where that is 0 / 0

It is the loss of every architecture whose L0 is set by k. The paper's k_aux is half of d_model; k is what makes dead
features specialise instead of sharing what is left over (figures: docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from kubesae.sae.kernels import product, top_k, top_k_code

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.shard import Shard
    from kubesae.sae.step import Batch
    from kubesae.sae.weights import Weights


@dataclass(frozen=True, slots=True)
class AuxK:
    """Settings of the auxiliary loss.

    Attributes:
        coefficient: what it is multiplied by.
        dead_A: int64 numbers of this shard's features that count as dead.
        dead: how many count as dead on all shards.
        k_aux: how many of them take part for each row.

    """

    coefficient: float
    dead_A: Tensor
    dead: int
    k_aux: int


def add_auxk(
    gradients: Weights,
    x_centred_BD: Tensor,
    e_BD: Tensor,
    weights: Weights,
    auxk: AuxK,
    batch: Batch,
) -> Tensor:
    """Add the gradients of the auxiliary loss to `gradients`, in place, and return this rank's share of the loss.

    All ranks have to call it where a feature is dead on any.

    k_aux may be large, so the products over the dead features are dense.
    """
    dead_A, wanted, shard = auxk.dead_A, auxk.k_aux, batch.shard
    W_enc_AD, W_dec_AD = weights.W_enc_FD[dead_A], weights.W_dec_FD[dead_A]
    z_BA = product(x_centred_BD, W_enc_AD.T, batch.dtype) + weights.b_enc_F[dead_A]
    f_BA = z_BA.relu() if auxk.dead <= wanted else _keep_top(z_BA, wanted, shard)
    left_BD = e_BD - shard.sum(product(f_BA, W_dec_AD, batch.dtype))

    # the sum of squares about the mean, over all ranks
    totals = batch.reduce(shard.once(torch.cat([e_BD.sum(0), e_BD.square().sum().reshape(1)]).double()))
    variance = totals[-1] - totals[:-1].square().sum() / batch.total_rows
    weight = auxk.coefficient * min(auxk.dead / wanted, 1.0) / variance
    weight = torch.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0).to(e_BD.dtype)

    g_BD = left_BD * (-2 * weight)
    dz_BA = product(g_BD, W_dec_AD.T, batch.dtype) * (f_BA > 0)
    db_A = dz_BA.sum(0)
    gradients.W_dec_FD[dead_A] += product(f_BA.T, g_BD, batch.dtype)
    gradients.W_enc_FD[dead_A] += product(dz_BA.T, x_centred_BD, batch.dtype)
    gradients.b_enc_F[dead_A] += db_A
    gradients.b_dec_D.sub_(db_A @ W_enc_AD)
    return shard.once(weight * left_BD.square().sum())


def _keep_top(z_BA: Tensor, k: int, shard: Shard) -> Tensor:
    """Return ReLU(z), with 0 for what is not among the k largest of a row on all shards."""
    if shard.count == 1:
        return top_k_code(z_BA, k).dense(z_BA.shape[1])
    f_BA, own = z_BA.relu(), min(k, z_BA.shape[1])
    columns_BC = top_k(z_BA, own)[1].long().sort(dim=1).values
    # shards have different numbers of dead features: zeros fill up their lines, and change nothing
    candidates_BK = F.pad(f_BA.gather(1, columns_BC), (0, k - own))
    kept_BC = shard.among_largest(candidates_BK, k)[:, :own]
    return f_BA * torch.zeros_like(f_BA, dtype=torch.bool).scatter_(1, columns_BC, kept_BC)
