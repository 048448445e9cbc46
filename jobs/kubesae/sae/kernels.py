"""Products with sparse codes: only the encoder's forward product is ever dense.

B = rows of a batch, D = d_model, F = features, K = active features of a row, N = all entries of a code.

A code holds the active features of B rows in compressed-row form. Everything a step needs of it is a gather or a
segmented sum: `decode` (rows of the decoder), `dots` (gradients of the values) and `ByFeature.sum` (gradients of both
matrices). On two CPU cores these take 18 ms where four dense products take 230 ms (4,096 rows, d_model 576, 4,608
features, 32 active). Each is written in torch, and calls compiled kernels where they are to be had (`backend`): C++ on
CPUs, Triton on CUDA devices.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import Tensor

from kubesae.sae.backend import backend_for

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOATS = (torch.bfloat16, torch.float32)
_GATHER_FLOATS = 1 << 22
_BITS16 = 1 << 16
_BITS32 = 1 << 32


@dataclass(frozen=True, slots=True)
class Code:
    """Active features of B rows: row b has the entries offsets[b] to offsets[b + 1].

    Attributes:
        offsets_B1: int64 [B + 1].
        features_N: int64 [N], feature of each entry.
        values_N: [N], its activation; entries that are 0 are allowed and mean inactive.

    """

    offsets_B1: Tensor
    features_N: Tensor
    values_N: Tensor

    @property
    def rows_N(self) -> Tensor:
        """Row of each entry, int64 [N]."""
        counts_B = self.offsets_B1.diff()
        rows_B = torch.arange(len(counts_B), device=counts_B.device)
        return rows_B.repeat_interleave(counts_B, output_size=len(self.features_N))

    def where(self, kept_N: Tensor) -> Code:
        """Return the code with those entries only for which `kept_N` is true."""
        ends = F.pad(kept_N.cumsum(0), (1, 0))
        return Code(ends[self.offsets_B1], self.features_N[kept_N], self.values_N[kept_N])

    def positive(self) -> Code:
        """Return the code without its entries that are 0, which may be none."""
        kept_N = self.values_N > 0
        return self if bool(kept_N.all()) else self.where(kept_N)

    def at_least(self, cutoff: float) -> Code:
        """Return the code without its entries below `cutoff`."""
        return self.where(self.values_N >= cutoff)

    def columns(self, begin: int, end: int) -> Code:
        """Return the code of the features `begin` to `end` - 1, numbered from 0."""
        part = self.where((self.features_N >= begin) & (self.features_N < end))
        return Code(part.offsets_B1, part.features_N - begin, part.values_N)

    @classmethod
    def of(cls, z_BF: Tensor, kept_BF: Tensor, dtype: torch.dtype) -> Code:
        """Return the entries of `z_BF` for which `kept_BF` is true, with values in `dtype`."""
        rows_N, features_N = torch.nonzero(kept_BF, as_tuple=True)
        offsets = torch.searchsorted(rows_N, torch.arange(len(z_BF) + 1, device=z_BF.device))
        return cls(offsets, features_N, z_BF[rows_N, features_N].to(dtype))

    @classmethod
    def joined(cls, codes: Sequence[Code]) -> Code:
        """Return the code of the rows of all `codes`, of which there is one at least."""
        starts = torch.tensor([len(code.values_N) for code in codes]).cumsum(0).tolist()
        offsets = [codes[0].offsets_B1]
        offsets += [code.offsets_B1[1:] + start for code, start in zip(codes[1:], starts, strict=False)]
        features_N, values_N = (
            torch.cat(parts) for parts in zip(*((c.features_N, c.values_N) for c in codes), strict=True)
        )
        return cls(torch.cat(offsets), features_N, values_N)

    def dense(self, features: int) -> Tensor:
        """Return the code as [B, features]."""
        out_BF = self.values_N.new_zeros(len(self.offsets_B1) - 1, features)
        out_BF[self.rows_N, self.features_N] = self.values_N
        return out_BF


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a @ b, multiplied in `dtype`, as `a`'s dtype."""
    return (a.to(dtype) @ b.to(dtype)).to(a.dtype)


def top_k(z_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row after ReLU, and their features: both [B, k], largest first.

    Where values are equal the feature with the lower number wins, on every device: bfloat16 has 8 bits, so that more
    than half of all rows have a tie at the k-th place, and `torch.topk` leaves ties open. The bits of a non-negative
    float order like an integer, so value and feature number are packed into one integer and that is sorted.
    """
    if z_BF.dtype == torch.bfloat16 and z_BF.shape[1] <= _BITS16:
        return _Packing(torch.int16, torch.int32, _BITS16).top(z_BF, k)
    if z_BF.dtype in {torch.bfloat16, torch.float32} and z_BF.shape[1] <= _BITS32 // 2:
        return _Packing(torch.int32, torch.int64, _BITS32).top(z_BF.float(), k)
    sorted_BF = torch.sort(z_BF.relu(), dim=1, descending=True, stable=True)
    return sorted_BF.values[:, :k], sorted_BF.indices[:, :k]


@dataclass(frozen=True, slots=True)
class _Packing:
    """Value and number of an entry as one integer: the value's bits times `base`, and the number counted downwards."""

    bits: torch.dtype
    packed: torch.dtype
    base: int

    def top(self, values_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest values of each row after ReLU, and their numbers; of equal ones the lowest numbers."""
        highest = self.base - 1
        numbers_F = torch.arange(values_BF.shape[1], dtype=self.packed, device=values_BF.device)
        # as integers all negative floats and -0.0 are negative: the clamp is the ReLU
        key = values_BF.view(self.bits).to(self.packed).clamp_min_(0).mul_(self.base).add_(highest - numbers_F)
        top = torch.topk(key, k, dim=1).values
        found = torch.div(top, self.base, rounding_mode="floor").to(self.bits).view(values_BF.dtype)
        return found, highest - (top % self.base)


def top_k_code(z_BF: Tensor, k: int) -> Code:
    """Return the k largest of each row after ReLU as a code with exactly k entries a row; ties as in `top_k`."""
    if (backend := backend_for(z_BF, dtypes=_FLOATS)) is not None:
        features_BK, values_BK = backend.largest(z_BF, k)
    else:
        values_BK, features_BK = top_k(z_BF, k)
    offsets = torch.arange(0, values_BK.numel() + 1, k, device=z_BF.device)
    exact = torch.promote_types(z_BF.dtype, torch.float32)
    return Code(offsets, features_BK.long().reshape(-1), values_BK.to(exact).reshape(-1))


def code_above(z_BF: Tensor, floor: float | Tensor, dtype: torch.dtype) -> Code:
    """Return the entries of `z_BF` above `floor`, one for all or [F], 0 or more, as a code with values in `dtype`."""
    if (backend := backend_for(z_BF, dtypes=_FLOATS)) is None:
        return Code.of(z_BF, z_BF > floor, dtype)
    if isinstance(floor, Tensor):
        code = code_above(z_BF, float(floor.min()), dtype)
        return code.where(code.values_N > floor[code.features_N])
    offsets_B1, features_N, values_N = backend.entries_above(z_BF, floor)
    return Code(offsets_B1, features_N, values_N.to(dtype))


def decode(code: Code, W_FD: Tensor) -> Tensor:
    """Return [B, D]: for each row the sum of its features' rows of `W_FD`, weighted by the values."""
    if (backend := backend_for(W_FD, code.values_N)) is not None:
        return backend.segment_sums(code.offsets_B1, code.features_N, code.values_N, W_FD)
    return F.embedding_bag(
        code.features_N, W_FD, code.offsets_B1, mode="sum", per_sample_weights=code.values_N, include_last_offset=True
    )


def dots(code: Code, g_BD: Tensor, W_FD: Tensor) -> Tensor:
    """Return [N]: for each entry the product of its row of `g_BD` and its feature's row of `W_FD`."""
    if (backend := backend_for(g_BD, W_FD)) is not None:
        return backend.dots(code.offsets_B1, code.features_N, g_BD, W_FD)
    if g_BD.device.type == "cpu":
        return _dots_sampled(code, g_BD, W_FD)
    return _dots_gathered(code, g_BD, W_FD)


def _dots_sampled(code: Code, g_BD: Tensor, W_FD: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch says once that its CSR tensors are in beta; the result is tested against the dense product
        warnings.simplefilter("ignore", UserWarning)
        pattern_BF = torch.sparse_csr_tensor(
            code.offsets_B1,
            code.features_N,
            torch.zeros_like(code.values_N),
            size=(len(g_BD), len(W_FD)),
            check_invariants=False,
        )
    sampled_BF: Tensor = torch.sparse.sampled_addmm(pattern_BF, g_BD, W_FD.T, beta=0.0)
    return sampled_BF.values()


def _dots_gathered(code: Code, g_BD: Tensor, W_FD: Tensor) -> Tensor:
    step = max(1, _GATHER_FLOATS // W_FD.shape[1])
    parts = zip(code.rows_N.split(step), code.features_N.split(step), strict=True)
    return torch.cat([torch.linalg.vecdot(g_BD[rows], W_FD[features]) for rows, features in parts])


def feature_sums(code: Code, features: int) -> Tensor:
    """Return [features]: for each feature the sum of its values.

    Off the CPU in an order that does not change: `index_add_` adds by atomics there.
    """
    if code.values_N.device.type == "cpu":
        return code.values_N.new_zeros(features).index_add_(0, code.features_N, code.values_N)
    ones_B1 = code.values_N.new_ones(len(code.offsets_B1) - 1, 1)
    return ByFeature(code, features).sum(code.values_N, ones_B1).squeeze(1)


class ByFeature:
    """The entries of a code sorted by feature: what gradients of a matrix row sum over."""

    def __init__(self, code: Code, features: int) -> None:
        """Sort the entries of `code`, which has `features` columns."""
        if (backend := backend_for(code.values_N)) is not None:
            self._offsets_F1, self._order_N, self._rows_N = backend.by_feature(
                code.offsets_B1, code.features_N, features
            )
            return
        ordered = torch.sort(code.features_N, stable=True)
        self._order_N = ordered.indices
        self._rows_N = code.rows_N[ordered.indices]
        self._offsets_F1 = torch.searchsorted(ordered.values, torch.arange(features + 1, device=code.features_N.device))

    def sum(self, weights_N: Tensor, x_BD: Tensor) -> Tensor:
        """Return [F, D]: for each feature the sum of the rows of `x_BD` where it has an entry, weighted."""
        weights_N = weights_N[self._order_N]
        if (backend := backend_for(x_BD, weights_N)) is not None:
            return backend.segment_sums(self._offsets_F1, self._rows_N, weights_N, x_BD)
        return F.embedding_bag(
            self._rows_N,
            x_BD,
            self._offsets_F1,
            mode="sum",
            per_sample_weights=weights_N,
            include_last_offset=True,
        )
