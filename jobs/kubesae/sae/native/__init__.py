"""The C++ of `kernels.cpp`, called on tensors of the CPU in float32 (and bfloat16 where it is named).

`kernels.py`, `train/adam.py` and `interpret` call these where `usable` or `compiled` says so, and torch or numpy
everywhere else: on accelerators, in float64, without a compiler. Both give the same up to the order of sums; equal
inputs on equal machines give equal bits, whatever the number of threads.

Arguments are checked by callers: contiguous, on the CPU, of the dtypes that are said.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kubesae.sae.native.build import compiled, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from torch import Tensor

    Array = npt.NDArray[Any]

__all__ = [
    "adam_step",
    "by_feature",
    "compiled",
    "dots",
    "entries_above",
    "group",
    "keep_first",
    "largest",
    "reason",
    "row_statistics",
    "segment_sums",
    "together",
    "usable",
]

_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "f32"}
# of a float's bits, those that a bfloat16 drops
_DROPPED = 16


def usable(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Return whether there is a library and it takes these tensors."""
    return all(
        tensor.device.type == "cpu" and tensor.dtype in dtypes and tensor.is_contiguous() for tensor in tensors
    ) and (compiled() is not None)


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the library: arrays by address, ints as int64, floats as float, None as a null pointer."""
    compiled()[f"kubesae_{name}"](*map(_as_c, arguments))  # type: ignore[index]  # callers ask `usable` first


def _as_c(argument: Any) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float:
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    if argument is None:
        return ctypes.c_void_p(None)
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_float(argument)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kubesae-native")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def _in_ranges(count: int, work: Callable[[int, int], None]) -> None:
    """Call `work(begin, end)` for ranges that cover `count`, as many at once as torch has threads."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    # the last range is this thread's own
    others = [_pool(threads - 1).submit(work, edges[i], edges[i + 1]) for i in range(threads - 1)]
    work(edges[-2], edges[-1])
    for other in others:
        other.result()


def largest(z_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return features int64 [B, k] and values float32 [B, k] of the k largest of each row after ReLU, by feature.

    Of equal values the lower features; where fewer are positive, features of value 0 follow. `z_BF`: bfloat16 or
    float32; k: from 1 to F.
    """
    rows, F = z_BF.shape
    if not 1 <= k <= F:
        raise ValueError(f"k is {k}: it has to be from 1 to {F}, the number of features")
    features_BK = torch.empty(rows, k, dtype=torch.int64)
    values_BK = torch.empty(rows, k)
    name = f"top_k_{_SUFFIX[z_BF.dtype]}"
    _in_ranges(rows, lambda a, b: _call(name, z_BF[a:], b - a, F, k, features_BK[a:], values_BK[a:]))
    return features_BK, values_BK


def entries_above(z_BF: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return offsets [B + 1], features [N] and values float32 [N] of the entries above `floor`, which is 0 or more.

    `z_BF`: bfloat16 (then `floor` is taken as the next lower bfloat16) or float32.
    """
    rows, F = z_BF.shape
    bits = int(torch.tensor(floor).view(torch.int32))
    suffix, bits = _SUFFIX[z_BF.dtype], bits >> _DROPPED if z_BF.dtype == torch.bfloat16 else bits
    offsets_B1 = torch.zeros(rows + 1, dtype=torch.int64)
    _in_ranges(rows, lambda a, b: _call(f"count_above_{suffix}", z_BF[a:], b - a, F, bits, offsets_B1[a + 1 :]))
    torch.cumsum(offsets_B1, 0, out=offsets_B1)
    entries = int(offsets_B1[-1])
    features_N, values_N = torch.empty(entries, dtype=torch.int64), torch.empty(entries)

    def write(a: int, b: int) -> None:
        _call(f"entries_above_{suffix}", z_BF[a:], b - a, F, bits, offsets_B1[a:], features_N, values_N)

    _in_ranges(rows, write)
    return offsets_B1, features_N, values_N


def segment_sums(offsets_S1: Tensor, rows_N: Tensor, weights_N: Tensor, x_RD: Tensor) -> Tensor:
    """Return [S, D]: for each segment the sum of the named rows of `x_RD`, weighted."""
    segments, D = len(offsets_S1) - 1, x_RD.shape[1]
    out_SD = torch.empty(segments, D)
    _in_ranges(
        segments,
        lambda a, b: _call("segment_sums", offsets_S1[a:], b - a, rows_N, weights_N, x_RD, D, out_SD[a:]),
    )
    return out_SD


def dots(offsets_B1: Tensor, features_N: Tensor, g_BD: Tensor, W_FD: Tensor) -> Tensor:
    """Return [N]: for each entry the product of its row of `g_BD` and its feature's row of `W_FD`."""
    rows, D = g_BD.shape
    out_N = torch.empty(len(features_N))
    _in_ranges(rows, lambda a, b: _call("dots", offsets_B1[a:], b - a, features_N, g_BD[a:], W_FD, D, out_N))
    return out_N


def by_feature(offsets_B1: Tensor, features_N: Tensor, features: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries sorted by feature, stable: offsets [F + 1], number of each entry [N], row of each [N]."""
    offsets_F1 = torch.empty(features + 1, dtype=torch.int64)
    order_N, rows_N = torch.empty_like(features_N), torch.empty_like(features_N)
    _call("by_feature", offsets_B1, len(offsets_B1) - 1, features_N, features, offsets_F1, order_N, rows_N)
    return offsets_F1, order_N, rows_N


def row_statistics(g_FD: Tensor, W_FD: Tensor) -> tuple[Tensor, Tensor]:
    """Return |g_f|^2 and g_f . W_f for each row f, both [F]."""
    rows, D = g_FD.shape
    square_F, along_F = torch.empty(rows), torch.empty(rows)
    _in_ranges(rows, lambda a, b: _call("row_stats", g_FD[a:], W_FD[a:], b - a, D, square_F[a:], along_F[a:]))
    return square_F, along_F


def group(key_N: Array, value_N: Array, groups: int) -> tuple[Array, Array]:
    """Return int64 offsets [groups + 1] and int32 values [N] of each key, in the order in which they come.

    Arrays of numpy, both int32; keys from 0 to `groups` - 1.
    """
    offsets, out_N = np.empty(groups + 1, np.int64), np.empty(len(key_N), np.int32)
    _call("group", *map(np.ascontiguousarray, (key_N, value_N)), len(key_N), groups, offsets, out_N)
    return offsets, out_N


def together(
    row_offsets_R1: Tensor, features_N: Tensor, feature_offsets_F1: Tensor, rows_N: Tensor, first: int, count: int
) -> Tensor:
    """Return int32 [count, F]: on how many rows each of the features from `first` on is active with each other one.

    The entries of a code both ways: `features_N` int32 by row, `rows_N` int32 by feature, with int64 offsets of each.
    """
    F = len(feature_offsets_F1) - 1
    out_TF = torch.empty(count, F, dtype=torch.int32)
    code = row_offsets_R1, features_N, feature_offsets_F1, rows_N
    _in_ranges(count, lambda a, b: _call("together", *code, first + a, b - a, F, out_TF[a:]))
    return out_TF


def keep_first(table: tuple[Array, Array, Array], entries: tuple[Array, Array, Array, Array]) -> None:
    """Show it entries: it keeps those that come first in their cell. Arrays of numpy; the table is changed in place.

    `table`: float32 values, int64 rows, uint64 orders, all [C, K], in each cell sorted by order, then row.
    `entries`: int64 cell, uint64 order, float32 value, int64 row, all [N].
    """
    _call("keep_first", *map(np.ascontiguousarray, entries), len(entries[0]), table[0].shape[1], *table)


def adam_step(
    W_FD: Tensor,
    g_FD: Tensor,
    moment_FD: Tensor,
    square_moment_FD: Tensor,
    along_F: Tensor | None,
    *,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    correct: float,
) -> None:
    """Take a step of Adam in place: W -= rate * m / (sqrt(v) * correct + epsilon), of the gradient g.

    With `along_F` (g . W) rows of W have norm 1 and keep it, and the gradient is g - along W.
    """
    rows, D = W_FD.shape

    def step(a: int, b: int) -> None:
        state = W_FD[a:], g_FD[a:], moment_FD[a:], square_moment_FD[a:]
        along = None if along_F is None else along_F[a:]
        _call("adam", *state, b - a, D, along, rate, *betas, epsilon, correct)

    _in_ranges(rows, step)
