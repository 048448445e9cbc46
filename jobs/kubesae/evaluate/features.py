"""What the report says of single features: how often they are active, and how alike they are. F = features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kubesae.evaluate.report import Dense, Density, Pair, Similarity
from kubesae.evaluate.similarity import nearest
from kubesae.evaluate.spread import logarithms, quantiles, unit_interval

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

DENSE = 0.1
"""a feature is dense that is active on a larger share of the rows"""
ALIKE = 0.9
LISTED = 10


def density(active_F: npt.NDArray[np.int64], rows: int) -> Density:
    """Return how often features are active, each on `active_F` of `rows` rows (one at least)."""
    share_F = active_F / rows
    active = share_F[active_F > 0]
    dense = np.flatnonzero(share_F > DENSE)
    densest = dense[np.argsort(-share_F[dense], kind="stable")][:LISTED]
    return Density(
        quantiles=quantiles(active) if len(active) else None,
        log10_histogram=logarithms(active, 1 / max(rows, 2)),
        dense=len(dense),
        dense_share=len(dense) / len(share_F),
        densest=tuple(Dense(feature=int(i), share=float(share_F[i])) for i in densest),
    )


def similarity(W_dec_FD: Tensor) -> Similarity | None:
    """Return how alike the decoder's rows are; None where there is but one."""
    if len(W_dec_FD) < 2:
        return None
    found = nearest(W_dec_FD)
    cosine_F, other_F = found.cosine_F.cpu().numpy(), found.other_F.cpu().numpy()
    pairs: dict[tuple[int, int], float] = {}  # of two features that are each other's nearest one pair
    for i in np.argsort(-cosine_F, kind="stable")[: 2 * LISTED].tolist():
        pairs.setdefault((min(i, int(other_F[i])), max(i, int(other_F[i]))), float(cosine_F[i]))
    return Similarity(
        quantiles=quantiles(cosine_F),
        histogram=unit_interval(cosine_F),
        alike_share=float((cosine_F > ALIKE).mean()),
        closest=tuple(Pair(feature=a, other=b, cosine=cosine) for (a, b), cosine in list(pairs.items())[:LISTED]),
    )
