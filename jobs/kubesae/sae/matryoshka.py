"""Matryoshka BatchTopK SAE (Bussmann et al. 2025, arXiv 2503.17547), with AuxK.

B = rows of this rank, D = d_model, F = features. `prefixes`: numbers of features m_1 < ... < m_P = F.

    f       = as in BatchTopK, over all features (batchtopk.py)
    x_hat_j = f[:m_j] W_dec[:m_j] + b_dec                      rows of W_dec have norm 1
    loss    = mean over j of the mean over rows and dimensions of (x - x_hat_j)^2  +  auxk        (auxk.py)

The first features have to reconstruct without the others, so they stay general while a wide dictionary splits the rest.
AuxK is about what all features together leave over. The paper sums over j: the mean keeps the loss in units of FVU, so
that learning rates and coefficients mean the same as for other architectures.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from kubesae.sae.gradients import b_dec_gradient, feature_gradients
from kubesae.sae.kernels import decode
from kubesae.sae.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kubesae.sae.kernels import Code
    from kubesae.sae.shard import Shard


def prefix_sizes(shares: Sequence[float], d_sae: int) -> tuple[int, ...]:
    """Return numbers of features for shares of them, ascending, each once and at least 1; the last is all."""
    return tuple(sorted({*(max(1, round(share * d_sae)) for share in shares), d_sae}))


def nested_gradients(
    code: Code,
    x_centred_BD: Tensor,
    e_BD: Tensor,
    weights: Weights,
    prefixes: Sequence[int],
    scale: float,
    shard: Shard,
) -> tuple[Tensor, Weights]:
    """Return this shard's share of `scale` times the sum over prefixes of the squared error, and its gradients.

    From the widest prefix to the narrowest: leaving out the outermost group of features gives its error back, and what
    a group adds is wanted by every prefix that holds it.

    Args:
        code: f.
        x_centred_BD: x - b_dec.
        e_BD: x - x_hat of all features.
        weights: the weights that made the code.
        prefixes: numbers of features, ascending; the last is all.
        scale: what squared errors are multiplied by.
        shard: which features the weights are of; prefixes are of all.

    """
    g_BD, loss = torch.zeros_like(e_BD), e_BD.new_zeros(())
    groups: list[tuple[Tensor, Tensor, Tensor]] = []
    for begin, end in reversed(list(pairwise([0, *prefixes]))):
        loss += shard.once(scale * e_BD.square().sum())
        g_BD.add_(e_BD, alpha=-2 * scale)
        low, high = shard.span(begin, end, len(weights.b_enc_F))
        group = code.columns(low, high)
        part = Weights(
            weights.W_enc_FD[low:high], weights.b_enc_F[low:high], weights.W_dec_FD[low:high], weights.b_dec_D
        )
        if low < high:  # a shard may have nothing of a group
            groups.append(feature_gradients(group, x_centred_BD, g_BD, part))
        if begin > 0:
            e_BD = e_BD + shard.sum(decode(group, part.W_dec_FD) if low < high else torch.zeros_like(e_BD))
    W_enc_FD, b_enc_F, W_dec_FD = (torch.cat(parts[::-1]) for parts in zip(*groups, strict=True))
    return loss, Weights(W_enc_FD, b_enc_F, W_dec_FD, b_dec_gradient(g_BD, b_enc_F, weights, shard))
