"""Winograd's filters: transformed, as panels of points made of panels of taps. In NumPy alone, so
that loading does it too, of files that hold the taps, which are fewer.

y = A^T [ (G g G^T) * (B^T d B) ] A (`winograd_transforms.py`). Points are made by single operations
of float64 in one order, without a library of products, and rounded once: they are the same bits on
every machine, and those of the native code that does it faster (`filter_transform.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.codegen.language.names import KernelName

if TYPE_CHECKING:
    from lucid.ir.ops.base import Array

A, B = 2 / 3, 3 / 2
"""The points are 0, +-A, +-B and infinity; of F(2x2) 0, +-1 and infinity."""
TAPS = 9

WHOLE_FILTERS: dict[int, Array] = {
    4: np.array([[6, 0, 0], [-2, -2, -2], [-2, 2, -2], [1, 2, 4], [1, -2, 4], [0, 0, 6]]),
    2: np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]),
}
"""G for integers, on the points 0, +-1, +-2 and infinity: its rows scaled to integers."""

CHUNK = 2048
"""Columns that are transformed at a time, so that what is between stays in L2."""


def filter_matrix(m: int) -> Array:
    """G, (m + 2, 3), in float64."""
    if m == 2:
        return np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float64)
    rows = [[1 / (A * A * B * B), 0, 0]]
    for p, q in ((A, B), (B, A)):
        scale = 2 * p * p * (p * p - q * q)
        rows += [[1 / scale, s * p / scale, p * p / scale] for s in (1, -1)]
    return np.array([*rows, [0, 0, 1]], np.float64)


def points(m: int) -> int:
    """What a 3x3 filter becomes, in numbers."""
    return (m + 2) ** 2


def matrix(m: int, dtype: str) -> list[list[float]]:
    """G for filters of this dtype, f32 or i16."""
    rows: list[list[float]] = (WHOLE_FILTERS[m] if dtype == "i16" else filter_matrix(m)).tolist()
    return rows


def transform_name(m: int, dtype: str) -> KernelName:
    """What the native `transform` is called (`filter_transform.py`)."""
    return KernelName(f"filter_transform(m={m}, dtype={dtype})")


def transform(taps: Array, m: int, out: Array) -> None:
    """G g G^T of each filter: taps (panels, 9, columns) -> out (panels, (m + 2)^2, columns). Both
    are float32, or int16 within -255..255, whose points are exact."""
    whole = taps.dtype == np.int16
    g = matrix(m, "i16" if whole else "f32")
    side = m + 2
    for panel, made in zip(taps, out, strict=True):
        for first in range(0, taps.shape[2], CHUNK):
            part = slice(first, first + CHUNK)
            filters = panel[:, part].astype(np.int16 if whole else np.float64).reshape(3, 3, -1)
            points = made[:, part].reshape(side, side, -1)
            lines = np.stack(list(multiplied(g, filters.swapaxes(0, 1))), axis=1)
            for line, row in zip(points, multiplied(g, lines), strict=True):
                line[...] = row  # rounded


def multiplied(g: Sequence[Sequence[float]], x: Any) -> Iterator[Any]:
    """The matrix g (n, 3) times three x, arrays or vectors of generated code, by rows. The first
    row takes the first of the three alone, the last one the last, and of those in between each two
    differ in the sign of the second."""
    first, *between, last = g  # of Python's numbers, which leave dtypes as they are
    yield x[0] * first[0]
    for a, b, c in between[::2]:
        even, odd = x[0] * a + x[2] * c, x[1] * b
        yield even + odd
        yield even - odd
    yield x[2] * last[2]
