"""Resampling: dead features start anew from rows that are reconstructed badly ("Towards Monosemanticity", 2023).

B = rows of this rank's share of a batch, D = d_model, F = features, A = dead features, R = features that get a row.

Rows are drawn without replacement, with a probability that grows with the square of their squared error. The decoder's
row becomes the row's direction, at the mean norm of those of living features; the encoder's row the same direction at
0.2 of the living ones' mean norm; biases 0 and thresholds what they started as; Adam's moments of all of these 0.

The draw is the same for any number of ranks, and needs no random state: a row's random number u is a hash of its bits,
so it is drawn, or not, whoever has it. The rows with the largest weight / -log(u) win, which is weighted sampling
without replacement (Efraimidis and Spirakis 2006).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kubesae.sae.shard import WHOLE

if TYPE_CHECKING:
    from torch import Tensor

    from kubesae.sae.shard import Reduce, Shard
    from kubesae.sae.weights import Weights

ENCODER_SHARE = 0.2
_HASHES = 1 << 31
_MULTIPLIER, _PRIME = 1_103_515_245, 2_147_483_647  # a product of a factor with numbers below 2^31 fits into int64


def draw_rows(x_BD: Tensor, error_B: Tensor, wanted: int, rank: int, world: int, reduce: Reduce) -> Tensor:
    """Return rows [R, D] of the batch of all ranks, the same on all of them.

    Args:
        x_BD: this rank's rows.
        error_B: their squared errors.
        wanted: how many rows; fewer come where fewer are not reconstructed exactly.
        rank: this rank among those that share out the rows.
        world: how many these are.
        reduce: sums a tensor over them.

    """
    best = (error_B.double().square() / -torch.log(_uniform(x_BD))).sort(descending=True, stable=True)
    count = min(wanted, len(x_BD))
    # a line for each rank
    bids = torch.zeros((world, wanted), dtype=torch.float64, device=x_BD.device)
    bids[rank, :count] = best.values[:count]
    order = reduce(bids).flatten().sort(descending=True, stable=True)
    winners_R = order.indices[:wanted][order.values[:wanted] > 0]
    own_R = (winners_R // wanted) == rank
    rows_RD = x_BD.new_zeros(len(winners_R), x_BD.shape[1])
    rows_RD[own_R] = x_BD[best.indices[winners_R[own_R] % wanted]]
    return reduce(rows_RD)


def _uniform(x_BD: Tensor) -> Tensor:
    """Return numbers in (0, 1), float64 [B], each a hash of a row's bits: a polynomial in them modulo a prime."""
    hash_B = torch.ones(len(x_BD), dtype=torch.int64, device=x_BD.device)
    for bits_B in x_BD.float().view(torch.int32).long().T:
        hash_B = (hash_B * _MULTIPLIER + (bits_B & (_HASHES - 1))) % _PRIME
    return (hash_B + 1).double() / (_PRIME + 1)


def replace_features(
    weights: Weights, features_R: Tensor, dead_F: Tensor, rows_RD: Tensor, threshold: float, shard: Shard = WHOLE
) -> None:
    """Let features begin anew from centred rows [R, D], in place.

    Args:
        weights: the weights.
        features_R: int64 numbers of the features that get a row.
        dead_F: bool [F], which features are dead: they have no say in norms.
        rows_RD: x - b_dec.
        threshold: what a trained threshold starts as.
        shard: which features these are; norms are those of all.

    """
    directions_RD = rows_RD / torch.linalg.vector_norm(rows_RD, dim=1, keepdim=True).clamp_min(1e-30)
    weights.W_enc_FD[features_R] = directions_RD * (ENCODER_SHARE * _living_norm(weights.W_enc_FD, dead_F, shard))
    weights.W_dec_FD[features_R] = directions_RD * _living_norm(weights.W_dec_FD, dead_F, shard)
    weights.b_enc_F[features_R] = 0
    if weights.log_threshold_F is not None:
        weights.log_threshold_F[features_R] = torch.tensor(threshold).log().item()
    for tensor_F in (weights.r_mag_F, weights.b_gate_F):
        if tensor_F is not None:
            tensor_F[features_R] = 0


def _living_norm(matrix_FD: Tensor, dead_F: Tensor, shard: Shard) -> float:
    """Return the mean norm of living features' rows on all shards, of all where none lives."""
    norm_F = torch.linalg.vector_norm(matrix_FD, dim=1, dtype=torch.float64)
    living_F = (~dead_F).double()
    sums = torch.stack([norm_F @ living_F, living_F.sum(), norm_F.sum(), torch.ones_like(norm_F).sum()])
    living, count, total, features = shard.sum(sums).tolist()
    return float(living / count if count else total / features)


def forget(moments: Weights, features_R: Tensor) -> None:
    """Set an optimiser's moments of features to 0, in place; those of b_dec stay."""
    for name, tensor in moments.named().items():
        if name != "b_dec":
            tensor[features_R] = 0
