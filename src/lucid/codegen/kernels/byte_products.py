"""When products of bytes may be added up in 16 bits: a check of each group of them, as data is met.

pmaddubsw multiplies 32 bytes at once, and adds up pairs of products in 16 bits, where 2 * 255 * 127
does not fit. A lane of 16 bits gets four products, x0 w0 + ... + x3 w3, two of each of two steps;
x is never negative. Those with w > 0 add up to |x| |w+| at most (Cauchy and Schwarz), w+ being the
positive ones of the four, those with w < 0 to -|x| |w-| at least, and all sums on the way are in
between. So they fit if

    |x|^2 max(|w+|^2, |w-|^2) <= 32767^2

with the largest |x|^2 of all lanes and rows of a register tile (their *peak*, known once rows are)
and the largest |w+|^2, |w-|^2 of all lanes and columns of a panel (its *limit* is the largest peak
allowed, known once weights are packed). For a group of eight k this is one comparison of two
integers. What fails it, 2 to 4% of the groups of ResNet-50, ResNeSt-50 and DenseNet-121, takes
another way, in the same sums. (The largest x times the sum of |w| fails for 13 to 18%, the sum of x
times the largest |w| for 12 to 64%.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite import ir

from lucid.codegen.language import pairs
from lucid.codegen.language.builder import Kernel
from lucid.codegen.language.values import I16, I32, Int, Integers, Pointer, Vector, constant
from lucid.ir.ops.base import Array

GROUP = 2
"""Steps whose products are added up in 16 bits: of four bytes each."""
GROUP_BYTES = 4 * GROUP
LARGEST = 2**15 - 1
"""What a sum of products may be."""


def limits(weights: Array) -> Array:
    """The largest sum of squares that x may have, [panel][group], for weights [panel][step][column]
    [4]."""
    lanes = weights.reshape(len(weights), -1, GROUP, weights.shape[2], 2, 2)
    signs = (np.maximum(sign * lanes, 0) for sign in (1, -1))
    squares = [np.square(part).sum((2, 5)).max((2, 3)) for part in signs]
    found: Array = LARGEST**2 // np.maximum(*squares).clip(1)
    return found


def store_peaks(k: Kernel, rows: Sequence[Pointer], depth: Int, out: Pointer) -> None:
    """The largest sum of squares of a lane of these rows of bytes, for each of their groups."""
    widest = 2 * k.vector  # as many 16-bit numbers as a vector holds
    whole = depth // widest * widest
    with k.loop(0, whole, widest) as loop:
        _store_peaks(k, rows, loop.index, widest, out)
    with k.loop(whole, depth, GROUP_BYTES) as loop:
        _store_peaks(k, rows, loop.index, GROUP_BYTES, out)


def _store_peaks(k: Kernel, rows: Sequence[Pointer], at: Int, count: int, out: Pointer) -> None:
    """Those of the groups in `count` bytes."""
    peaks = _lanes(k, rows[0] + at, count)
    for row in rows[1:]:
        squares = _lanes(k, row + at, count)
        peaks = k.pick(squares.compare(">", peaks), squares, peaks)
    low, high = (k.shuffle(peaks, range(lane, count // 2, 4)) for lane in (0, 1))
    k.store(k.pick(low.compare(">", high), low, high), out + at // GROUP_BYTES)


def _lanes(k: Kernel, row: Pointer, count: int) -> Integers:
    """The sums of squares of each group's first and second lane, twice."""
    raw = k.builder.zext(k.load(row, count).raw, ir.VectorType(I16, count))
    numbers = Vector(k.builder, raw)
    zero = Integers(k.builder, constant(ir.VectorType(I32, count // 2), 0), signed=True)
    steps = pairs.multiply_add(k, numbers, numbers, zero)
    other = k.shuffle(steps, [lane ^ 2 for lane in range(count // 2)])
    return steps + other
