"""int8 with a power of two for each 32 dimensions: half the bytes of bfloat16. Its values are MXINT8's.

A row is cut into blocks of 32 consecutive dimensions, the last one shorter where the width is no multiple. A block has
an exponent e, the least with which its largest value rounds to at most 127 steps of 2^e; a value is stored as its
number of steps, to nearest even. So the error is at most half a step, and a block's largest value has 64 to 127 of
them: seven bits, which bfloat16 holds exactly. What has been stored once is stored as the same bytes again.

The format is that of "OCP Microscaling Formats (MX) Specification" 1.0 (2023), section 5.3.4; ours never saturates.
N = rows, D = d_model, K = blocks of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 32
"""dimensions that share an exponent"""
LOWEST = -100
"""the least exponent: what is below half of 2^-100 is stored as 0, and no step is a subnormal number"""
_HIGHEST = 121  # 127 of these steps are just below the largest float32

TILE = 1 << 17  # values: what is worked on stays in the processor's cache
_POWERS = np.ldexp(np.float32(1), np.arange(256, dtype=np.uint8).view(np.int8))  # by the exponent's byte
_MANTISSA, _BIAS = 23, 127  # of float32
_TO_TOP = _BIAS + 6  # from a block's exponent to the biased one of its largest value, which has 64 steps or more
_HALF = 1 << 16  # of the last of seven bits: added, it carries into the exponent where seven bits round up to eight


def blocks_of_row(d_model: int) -> int:
    """Return K."""
    return -(-d_model // BLOCK)


def encode(x_ND: Tensor, acts_ND: npt.NDArray[np.int8], exponents_NK: npt.NDArray[np.int8]) -> npt.NDArray[np.float64]:
    """Store rows, and return their squared errors, float64 [N]: NaN where a value is not finite.

    The bytes depend on the values alone: the same on any device, with any number of threads.

    Args:
        x_ND: of any float dtype, on any device; values of 2^127 and more are not expected.
        acts_ND: steps are written to it.
        exponents_NK: exponents are written to it.

    """
    import torch  # noqa: PLC0415 - who only reads does not need it

    steps_ND, into_NK = torch.from_numpy(acts_ND), torch.from_numpy(exponents_NK)
    rows, width = x_ND.shape
    tile = max(1, min(rows, TILE // width) if x_ND.device.type == "cpu" else rows)
    # Zeros stand behind a last block that is short. New memory for each tile would cost as much as the work.
    memory = torch.zeros((2, tile, blocks_of_row(width) * BLOCK), device=x_ND.device).unflatten(2, (-1, BLOCK))
    top_NK = torch.empty((rows, blocks_of_row(width)), dtype=torch.int32, device=x_ND.device)
    left_NK = torch.empty(top_NK.shape, device=x_ND.device)
    for first in range(0, rows, tile):
        part = slice(first, min(first + tile, rows))
        y_NKB, q_NKB = memory[:, : part.stop - first]
        y_NKB.flatten(1)[:, :width] = x_ND[part]
        top = torch.amax(torch.abs(y_NKB, out=q_NKB).view(torch.int32), 2, out=top_NK[part])
        top.add_(_HALF).bitwise_right_shift_(_MANTISSA).clamp_(LOWEST + _TO_TOP, _HIGHEST + _TO_TOP)
        y_NKB *= ((_BIAS + _TO_TOP - top) << _MANTISSA).view(torch.float32)[..., None]
        steps_ND[part] = torch.round(y_NKB, out=q_NKB).flatten(1)[:, :width]
        torch.sum(y_NKB.sub_(q_NKB).square_(), 2, out=left_NK[part])
    into_NK.copy_(top_NK.sub_(_TO_TOP))
    step_NK = top_NK.add_(_BIAS).bitwise_left_shift_(_MANTISSA).view(torch.float32)
    return left_NK.double().mul_(step_NK).mul_(step_NK).sum(1).cpu().numpy()


def decode(acts_ND: npt.NDArray[np.int8], exponents_NK: npt.NDArray[np.int8], out_ND: npt.NDArray[np.float32]) -> None:
    """Write the float32 values to `out_ND`, exactly."""
    rows, width = acts_ND.shape
    whole = width // BLOCK
    tile = max(1, TILE // width)
    for first in range(0, rows, tile):
        part = slice(first, first + tile)
        x_ND, step_NK = out_ND[part], _POWERS[exponents_NK[part].view(np.uint8)]
        np.copyto(x_ND, acts_ND[part])
        x_NKB = x_ND[:, : whole * BLOCK].reshape(len(x_ND), whole, BLOCK)  # a view: only the last axis is split
        np.multiply(x_NKB, step_NK[:, :whole, None], out=x_NKB)
        rest = x_ND[:, whole * BLOCK :]
        np.multiply(rest, step_NK[:, whole:], out=rest)


def gather_bfloat16(
    acts_ND: npt.NDArray[np.int8],
    exponents_NK: npt.NDArray[np.int8],
    rows: npt.NDArray[np.int64],
    out_ND: npt.NDArray[np.int16],
) -> None:
    """Write the rows with these numbers to `out_ND` as bits of bfloat16, exactly."""
    tile = max(1, TILE // acts_ND.shape[1])
    x_ND = np.empty((min(tile, len(rows)), acts_ND.shape[1]), np.float32)
    for first in range(0, len(rows), tile):
        chosen = rows[first : first + tile]
        x = x_ND[: len(chosen)]
        decode(acts_ND[chosen], exponents_NK[chosen], x)
        bits = x.view(np.uint32)
        np.right_shift(bits, 16, out=bits)
        np.copyto(out_ND[first : first + tile].view(np.uint16), bits, casting="unsafe")
