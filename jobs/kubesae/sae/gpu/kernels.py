"""What a training step does besides its dense products, in Triton. `launches.py` beside this file calls it.

The same in torch is the reference, and in C++ `native/kernels.cpp`. Matrices are row-major and contiguous, offsets and
numbers int64, sums float32. Names: B rows, D = d_model, F = features, N = entries of a code, S = segments.

Every program writes what no other one does, in an order that its inputs decide. A tile is [entries, columns]: lane e of
a tile takes the entries e, e + BLOCK_E, ... of its segment in order, and the lanes are added last, so that a feature
that many rows have is summed by many lanes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def segment_sums(offsets, rows, weights, x, out, D, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr) -> None:
    """Write BLOCK_D columns of one segment: the sum over its entries j of weights[j] * x[rows[j]].

    `decode` where segments are rows of a batch, gradients of a matrix where they are features. Grid: [S, D / BLOCK_D].
    """
    segment = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = columns < D
    end = tl.load(offsets + segment + 1)
    sums = tl.zeros((BLOCK_E, BLOCK_D), tl.float32)
    for first in range(tl.load(offsets + segment), end, BLOCK_E):
        entries = first + tl.arange(0, BLOCK_E)
        own = entries < end
        row = tl.load(rows + entries, mask=own, other=0)
        weight = tl.load(weights + entries, mask=own, other=0.0)
        tile = tl.load(x + row[:, None] * D + columns[None, :], mask=own[:, None] & inside[None, :], other=0.0)
        sums += weight[:, None] * tile
    tl.store(out + segment * D + columns, tl.sum(sums, axis=0), mask=inside)


@triton.jit
def dots(offsets, features, g, W, out, D, BLOCK_E: tl.constexpr, BLOCK_D: tl.constexpr) -> None:
    """Write g[b] . W[features[j]] for the entries j of one row b. Grid: [B]."""
    row = tl.program_id(0).to(tl.int64)
    end = tl.load(offsets + row + 1)
    for first in range(tl.load(offsets + row), end, BLOCK_E):
        entries = first + tl.arange(0, BLOCK_E)
        own = entries < end
        feature = tl.load(features + entries, mask=own, other=0)
        sums = tl.zeros((BLOCK_E, BLOCK_D), tl.float32)
        for start in range(0, D, BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            inside = columns < D
            left = tl.load(g + row * D + columns, mask=inside, other=0.0)
            right = tl.load(W + feature[:, None] * D + columns[None, :], mask=own[:, None] & inside[None, :], other=0.0)
            sums += left[None, :] * right
        tl.store(out + entries, tl.sum(sums, axis=1), mask=own)


@triton.jit
def _bits(z):
    """Return int32 that order like ReLU(z): bits of non-negative floats do, and negative floats are negative."""
    as_integer = z.to(tl.int16, bitcast=True) if z.dtype == tl.bfloat16 else z.to(tl.int32, bitcast=True)
    return tl.maximum(as_integer.to(tl.int32), 0)


@triton.jit
def _count_greater(z, F, floor, BLOCK: tl.constexpr):
    """Return how many of the F numbers from `z` on have greater bits than `floor`, which is 0 or more."""
    counts = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, F, BLOCK):
        numbers = first + tl.arange(0, BLOCK)
        counts += (_bits(tl.load(z + numbers, mask=numbers < F, other=0.0)) > floor).to(tl.int32)
    return tl.sum(counts, axis=0)


@triton.jit
def largest(z, features, values, F, k, BITS: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Write features and values of the k largest of one row after ReLU, by feature; of equal ones the lower. Grid: [B].

    The bits of the k-th largest are found from the highest to the lowest: each is set where k entries have it set.
    """
    row = tl.program_id(0).to(tl.int64)
    z += row * F
    kth = 0
    for step in range(BITS):
        candidate = kth | (1 << (BITS - 1 - step))
        kth = tl.where(_count_greater(z, F, candidate - 1, BLOCK) >= k, candidate, kth)
    equal_wanted = k - _count_greater(z, F, kth, BLOCK)
    features += row * k
    values += row * k
    equal_seen, written = 0, 0
    for first in range(0, F, BLOCK):
        numbers = first + tl.arange(0, BLOCK)
        entry = tl.load(z + numbers, mask=numbers < F, other=0.0)
        bits = _bits(entry)
        equal = ((bits == kth) & (numbers < F)).to(tl.int32)
        early = equal_seen + tl.cumsum(equal, axis=0) <= equal_wanted
        taken = (bits > kth) | ((equal > 0) & early)
        places = written + tl.cumsum(taken.to(tl.int32), axis=0) - 1
        tl.store(features + places, numbers.to(tl.int64), mask=taken)
        tl.store(values + places, tl.where(bits > 0, entry.to(tl.float32), 0.0), mask=taken)
        equal_seen += tl.sum(equal, axis=0)
        written += tl.sum(taken.to(tl.int32), axis=0)


@triton.jit
def count_above(z, counts, floor, F, BLOCK: tl.constexpr) -> None:
    """Write how many entries of one row are above `floor`. Grid: [B]."""
    row = tl.program_id(0).to(tl.int64)
    above = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, F, BLOCK):
        numbers = first + tl.arange(0, BLOCK)
        entry = tl.load(z + row * F + numbers, mask=numbers < F, other=0.0).to(tl.float32)
        above += ((entry > floor) & (numbers < F)).to(tl.int32)
    tl.store(counts + row, tl.sum(above, axis=0).to(tl.int64))


@triton.jit
def entries_above(z, offsets, features, values, floor, F, BLOCK: tl.constexpr) -> None:
    """Write features and values of the entries of one row above `floor`, from its offset on. Grid: [B]."""
    row = tl.program_id(0).to(tl.int64)
    features += tl.load(offsets + row)
    values += tl.load(offsets + row)
    written = 0
    for first in range(0, F, BLOCK):
        numbers = first + tl.arange(0, BLOCK)
        entry = tl.load(z + row * F + numbers, mask=numbers < F, other=0.0).to(tl.float32)
        taken = (entry > floor) & (numbers < F)
        places = written + tl.cumsum(taken.to(tl.int32), axis=0) - 1
        tl.store(features + places, numbers.to(tl.int64), mask=taken)
        tl.store(values + places, entry, mask=taken)
        written += tl.sum(taken.to(tl.int32), axis=0)


@triton.jit
def row_statistics(g, W, squares, along, D, BLOCK: tl.constexpr) -> None:
    """Write |g_f|^2 and g_f . W_f of one row f. Grid: [F]."""
    row = tl.program_id(0).to(tl.int64)
    square, dot = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for first in range(0, D, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        gradient = tl.load(g + row * D + columns, mask=columns < D, other=0.0)
        square += gradient * gradient
        dot += gradient * tl.load(W + row * D + columns, mask=columns < D, other=0.0)
    tl.store(squares + row, tl.sum(square, axis=0))
    tl.store(along + row, tl.sum(dot, axis=0))


@triton.jit
def adam(W, g, m, v, along, D, rate, beta1, beta2, epsilon, correct, BLOCK: tl.constexpr) -> None:
    """Take Adam's step on one row: w -= rate * m / (sqrt(v) * correct + epsilon). Grid: [F].

    With `along` (else None), of rows that have norm 1 and keep it: without the gradient's part along the row.
    """
    row = tl.program_id(0).to(tl.int64)
    squares = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, D, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        at, inside = row * D + columns, columns < D
        w = tl.load(W + at, mask=inside, other=0.0)
        gradient = tl.load(g + at, mask=inside, other=0.0)
        if along is not None:
            gradient -= tl.load(along + row) * w
        moment = beta1 * tl.load(m + at, mask=inside, other=0.0) + (1 - beta1) * gradient
        square = beta2 * tl.load(v + at, mask=inside, other=0.0) + (1 - beta2) * gradient * gradient
        w -= rate * moment / (tl.sqrt(square) * correct + epsilon)
        tl.store(m + at, moment, mask=inside)
        tl.store(v + at, square, mask=inside)
        tl.store(W + at, w, mask=inside)
        squares += w * w
    if along is not None:
        inverse = 1 / tl.sqrt(tl.sum(squares, axis=0))
        tl.debug_barrier()  # other threads of this program may have written what a thread reads now
        for first in range(0, D, BLOCK):
            columns = first + tl.arange(0, BLOCK)
            at, inside = row * D + columns, columns < D
            tl.store(W + at, tl.load(W + at, mask=inside, other=0.0) * inverse, mask=inside)
