"""Which features are active on the same rows: counts, Jaccard index and NPMI over the full width, from the codes.

    jaccard = n_fg / (n_f + n_g - n_fg)
    npmi    = log(n n_fg / (n_f n_g)) / log(n / n_fg)           (Bouma, 2009); 1 where both are active on all n rows

Counting takes the square of the active features of each row, so it is done over at most ROWS rows, those with the
smallest hash: a uniform sample, the same one in every pass. Memory: 8 bytes an entry of these rows (0.3 GB at 32 active
features), at most 8 ENTRIES: where rows have more entries, fewer rows are taken; and a tile of T x F numbers. The F x F
matrix is never whole. Counts are integers, so compiled kernels and numpy give the same bits.

F = features, R = sampled rows, N = their entries, T = features of a tile, K = kept of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from kubesae.features.answers import COACTIVATION
from kubesae.features.codes import stable_order
from kubesae.interpret.answers.lists import lists
from kubesae.interpret.kept import by_hash
from kubesae.sae import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from kubesae.features import Codes

MOST = 20
ROWS = 1 << 20
ENTRIES = 1 << 26
_TILE = 1 << 22
"""pairs of features looked at at a time"""
_GATHERED = 1 << 24
"""pairs of entries that numpy counts at a time"""
_HASHES = 1 << 64


@dataclass(frozen=True, slots=True)
class Sample:
    """Entries of some rows, by row and by feature: int64 offsets [R + 1] and [F + 1], int32 features and rows [N]."""

    row_offset_R: npt.NDArray[np.int64]
    feature_N: npt.NDArray[np.int32]
    feature_offset_F: npt.NDArray[np.int64]
    row_N: npt.NDArray[np.int32]

    @property
    def rows(self) -> int:
        """Rows, those on which nothing is active included."""
        return len(self.row_offset_R) - 1

    @property
    def count_F(self) -> npt.NDArray[np.int64]:
        """Rows on which each feature is active."""
        return np.diff(self.feature_offset_F)


def sample_rows(files: Iterable[Codes], rows: int, entries: int, features: int, most: int = ROWS) -> Sample:
    """Return the codes of at most `most` unflagged rows, those with the smallest hash of their number.

    Args:
        files: all codes; one is in memory at a time.
        rows: unflagged rows in them.
        entries: active pairs of a row and a feature in them.
        features: features of the SAE.
        most: rows; fewer, where these would have more than ENTRIES entries.

    """
    most = max(1, min(most, ENTRIES * rows // max(entries, 1)))
    # A little more than is wanted: how many rows have a smaller hash is chance. What is too much goes at the end.
    bound = min(_HASHES - 1, _HASHES * (most + 8 * int(most**0.5) + 8) // max(rows, 1))
    seen, parts = 0, [(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))]
    for codes in files:
        here_R = np.flatnonzero(codes.kept_R)
        here_R = here_R[by_hash(codes.first_row + here_R) <= np.uint64(bound)]
        number_R = np.full(len(codes.kept_R), -1, np.int32)
        number_R[here_R] = seen + np.arange(len(here_R), dtype=np.int32)
        own_N = number_R[codes.row_N]
        inside_N = own_N >= 0
        parts.append((codes.first_row + here_R, own_N[inside_N], codes.features_N()[inside_N]))
        seen += len(here_R)
    global_R, number_N, feature_N = (np.concatenate(column) for column in zip(*parts, strict=True))
    parts.clear()
    if len(global_R) > most:
        taken_R = np.zeros(len(global_R), np.bool_)
        taken_R[np.argsort(by_hash(global_R))[:most]] = True
        feature_N, number_N = feature_N[taken_R[number_N]], number_N[taken_R[number_N]]
        number_N = (np.cumsum(taken_R, dtype=np.int32) - 1)[number_N]
    return _both_ways(number_N, feature_N, min(len(global_R), most), features)


def _both_ways(row_N: npt.NDArray[np.int32], feature_N: npt.NDArray[np.int32], rows: int, features: int) -> Sample:
    """Order entries by row, and by feature; within a file they are by feature and row, and files are by row."""
    group = _group if native.compiled() is None else native.group
    return Sample(*group(row_N, feature_N, rows), *group(feature_N, row_N, features))


def _group(
    key_N: npt.NDArray[np.int32], value_N: npt.NDArray[np.int32], groups: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return what `native.group` does."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(key_N, minlength=groups))])
    return offsets, value_N[stable_order(key_N)]


def coactivation_table(sample: Sample, most: int = MOST, tile: int = _TILE) -> pa.Table:
    """Return the `most` features with the largest Jaccard index of each; of equal ones the lower number first.

    Itself is left out, and so are features that are never active with it.
    """
    features, counted = len(sample.count_F), _counter(sample)
    step = max(1, tile // features)
    found = [
        _best(sample.count_F, counted, first, min(step, features - first), most) for first in range(0, features, step)
    ]
    number_N, other_N, both_N, jaccard_N = (np.concatenate(column) for column in zip(*found, strict=True))
    length_F = np.bincount(number_N, minlength=features)
    npmi_N = _npmi(sample.count_F[number_N], sample.count_F[other_N], both_N, sample.rows)
    return pa.table(
        {
            "feature": np.arange(features, dtype=np.int32),
            "others": lists(other_N, length_F, pa.int32()),
            "counts": lists(both_N, length_F, pa.int64()),
            "jaccard": lists(jaccard_N, length_F, pa.float32()),
            "npmi": lists(npmi_N, length_F, pa.float32()),
        }
    ).cast(COACTIVATION)


_Best = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _best(
    count_F: npt.NDArray[np.int64], counted: Callable[[int, int], Tensor], first: int, tile: int, most: int
) -> _Best:
    """Return feature, other feature, rows of both, and Jaccard index of what is kept of `tile` features, in order.

    All pairs are looked at in float32, which is quick. Those that come near the last one that is kept, to within what
    float32 rounds, are compared in float64: there quotients of integers below 2^26 are equal only where they are.
    """
    both_TF = counted(first, tile)
    itself_T = torch.arange(tile)
    both_TF[itself_T, first + itself_T] = 0
    wide_F = torch.from_numpy(count_F.astype(np.float32))
    jaccard_TF = both_TF.float()
    jaccard_TF.div_((wide_F[first : first + tile, None] - jaccard_TF).add_(wide_F).clamp_min_(1))
    least_T1 = torch.topk(jaccard_TF, min(most, len(count_F)), dim=1).values[:, -1:] * (1 - 2**-22)
    near = ((jaccard_TF >= least_T1) & (jaccard_TF > 0)).nonzero(as_tuple=True)
    both_N = both_TF[near].numpy().astype(np.int64)
    own_N, other_N = (part.numpy() for part in near)
    jaccard_N = both_N / (count_F[first + own_N] + count_F[other_N] - both_N)
    order = np.lexsort((other_N, -jaccard_N, own_N))
    length_T = np.bincount(own_N, minlength=tile)
    rank_N = np.arange(len(order)) - np.repeat(np.cumsum(length_T) - length_T, length_T)
    kept = order[rank_N < most]
    return first + own_N[kept], other_N[kept], both_N[kept], jaccard_N[kept]


def _npmi(
    one_N: npt.NDArray[np.int64], other_N: npt.NDArray[np.int64], both_N: npt.NDArray[np.int64], rows: int
) -> npt.NDArray[np.float64]:
    """Normalised pointwise mutual information, in [-1, 1]."""
    always_N = both_N == rows
    bits_N = np.log(rows / both_N)
    pmi_N = np.log(rows * both_N / (one_N * other_N.astype(np.float64)))
    npmi_N: npt.NDArray[np.float64] = np.where(always_N, 1.0, pmi_N / np.where(always_N, 1.0, bits_N))
    return npmi_N


def _counter(sample: Sample) -> Callable[[int, int], Tensor]:
    """Return what counts, for features from a first one on, the rows that each shares with each other one."""
    if native.compiled() is None:
        return lambda first, count: torch.from_numpy(together(sample, first, count))
    row_offset_R, feature_N, feature_offset_F, row_N = map(
        torch.from_numpy, (sample.row_offset_R, sample.feature_N, sample.feature_offset_F, sample.row_N)
    )
    return lambda first, count: native.together(row_offset_R, feature_N, feature_offset_F, row_N, first, count)


def together(sample: Sample, first: int, count: int) -> npt.NDArray[np.int32]:
    """Return what `native.together` does, int32 [count, F]: the reference, and what runs where nothing is compiled."""
    features = len(sample.count_F)
    both_TF = np.zeros((count, features), np.int32)
    begin, end = sample.feature_offset_F[[first, first + count]].tolist()
    own_N = np.repeat(np.arange(count), sample.count_F[first : first + count])
    row_N = sample.row_N[begin:end]
    width_N = np.diff(sample.row_offset_R)[row_N]
    edges = np.searchsorted(np.cumsum(width_N), np.arange(_GATHERED, width_N.sum() + _GATHERED, _GATHERED))
    start = 0
    for stop in (edges + 1).tolist():
        width, row = width_N[start:stop], row_N[start:stop]
        place = np.arange(width.sum()) + np.repeat(sample.row_offset_R[row] - (np.cumsum(width) - width), width)
        cell = np.repeat(own_N[start:stop] * features, width) + sample.feature_N[place]
        both_TF += np.bincount(cell, minlength=both_TF.size).reshape(both_TF.shape).astype(np.int32)
        start = stop
    return both_TF
