"""The functions of `native`, with the same arguments and results, by the Triton kernels of `kernels.py`.

Importing this loads triton. Arguments are checked by callers: contiguous, aligned, on one device, of the dtypes that
are said. Results are on the same device.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
import triton

from kubesae.sae.gpu import kernels

if TYPE_CHECKING:
    from torch import Tensor

# Numbers of a tile: 16 for each thread of four warps.
_TILE = 2048
# Columns of a tile: a warp reads 128 floats at once, 16 bytes a thread.
_COLUMNS = 128
_ENTRIES = 256
# Numbers of a row that are worked on at once: by eight warps where rows are searched (more would take so many registers
# that few programs fit a processor), by four in the optimiser.
_SEARCHED = 2048
_ROW = 1024
# bits of a non-negative number after its sign
_BITS = {torch.bfloat16: 15, torch.float32: 31}


def _launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: int) -> None:
    """Start a kernel on the device of its first argument, unless there is nothing to do."""
    if 0 in grid:
        return
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():  # tests interpret kernels on the CPU
        # triton's default for a multiplication and an addition in one instruction is about to change, and with it bits
        kernel[grid](*arguments, **constants, enable_fp_fusion=True)


def _tile(D: int) -> dict[str, int]:
    """Return the tile's entries and columns for rows of D numbers."""
    columns = min(_COLUMNS, triton.next_power_of_2(D))
    return {"BLOCK_E": min(_ENTRIES, _TILE // columns), "BLOCK_D": columns}


def _block(size: int, most: int) -> int:
    return int(min(most, triton.next_power_of_2(size)))


def largest(z_BF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return features int64 [B, k] and values float32 [B, k] of the k largest of each row after ReLU, by feature.

    Of equal values the lower features. `z_BF`: bfloat16 or float32; k: from 1 to F.
    """
    rows, features = z_BF.shape
    if not 1 <= k <= features:
        raise ValueError(f"k is {k}: it has to be from 1 to {features}, the number of features")
    features_BK = torch.empty(rows, k, dtype=torch.int64, device=z_BF.device)
    values_BK = torch.empty(rows, k, device=z_BF.device)
    sizes = {"BITS": _BITS[z_BF.dtype], "BLOCK": _block(features, _SEARCHED)}
    _launch(kernels.largest, (rows,), z_BF, features_BK, values_BK, features, k, **sizes, num_warps=8)
    return features_BK, values_BK


def entries_above(z_BF: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return offsets [B + 1], features [N] and values float32 [N] of the entries above `floor`. Waits for the device.

    `z_BF`: bfloat16 or float32; it is compared with `floor` in float32.
    """
    (rows, features), device, floor = z_BF.shape, z_BF.device, float(floor)
    counts_B = torch.empty(rows, dtype=torch.int64, device=device)
    options = {"BLOCK": _block(features, _SEARCHED), "num_warps": 8}
    _launch(kernels.count_above, (rows,), z_BF, counts_B, floor, features, **options)
    offsets_B1 = F.pad(counts_B.cumsum(0), (1, 0))
    entries = int(offsets_B1[-1])
    features_N = torch.empty(entries, dtype=torch.int64, device=device)
    values_N = torch.empty(entries, device=device)
    _launch(kernels.entries_above, (rows,), z_BF, offsets_B1, features_N, values_N, floor, features, **options)
    return offsets_B1, features_N, values_N


def segment_sums(offsets_S1: Tensor, rows_N: Tensor, weights_N: Tensor, x_RD: Tensor) -> Tensor:
    """Return [S, D]: for each segment the sum of the named rows of `x_RD`, weighted."""
    segments, D = len(offsets_S1) - 1, x_RD.shape[1]
    out_SD, tile = x_RD.new_empty(segments, D), _tile(D)
    grid = segments, triton.cdiv(D, tile["BLOCK_D"])
    _launch(kernels.segment_sums, grid, offsets_S1, rows_N, weights_N, x_RD, out_SD, D, **tile, num_warps=4)
    return out_SD


def dots(offsets_B1: Tensor, features_N: Tensor, g_BD: Tensor, W_FD: Tensor) -> Tensor:
    """Return [N]: for each entry the product of its row of `g_BD` and its feature's row of `W_FD`."""
    rows, D = g_BD.shape
    out_N = g_BD.new_empty(len(features_N))
    _launch(kernels.dots, (rows,), offsets_B1, features_N, g_BD, W_FD, out_N, D, **_tile(D), num_warps=4)
    return out_N


def by_feature(offsets_B1: Tensor, features_N: Tensor, features: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the entries sorted by feature, stable: offsets [F + 1], number of each entry [N], row of each [N]."""
    ordered = torch.sort(features_N.int(), stable=True)  # half the bits, half the rounds of a radix sort
    edges_F1 = torch.arange(features + 1, dtype=torch.int32, device=features_N.device)
    offsets_F1 = torch.searchsorted(ordered.values, edges_F1)
    rows_N = torch.searchsorted(offsets_B1[1:], ordered.indices, right=True)
    return offsets_F1, ordered.indices, rows_N


def row_statistics(g_FD: Tensor, W_FD: Tensor) -> tuple[Tensor, Tensor]:
    """Return |g_f|^2 and g_f . W_f for each row f, both [F]."""
    rows, D = g_FD.shape
    square_F, along_F = g_FD.new_empty(rows), g_FD.new_empty(rows)
    block = _block(D, _ROW)
    _launch(kernels.row_statistics, (rows,), g_FD, W_FD, square_F, along_F, D, BLOCK=block, num_warps=4)
    return square_F, along_F


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
    state = W_FD, g_FD, moment_FD, square_moment_FD, along_F
    numbers = rate, *betas, epsilon, correct
    _launch(kernels.adam, (rows,), *state, D, *numbers, BLOCK=_block(D, _ROW), num_warps=4)
