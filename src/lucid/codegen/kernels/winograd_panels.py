"""Winograd's filters: transformed, as panels of points made of panels of taps. In NumPy alone, so
that loading does it too, of files that hold the taps, which are fewer.

y = A^T [ (G g G^T) * (B^T d B) ] A (`winograd_transforms.py`). Points are made by single operations
of float64 in one order, without a library of products, and rounded once: they are the same bits on
every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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


def transform(taps: Array, m: int, out: Array) -> None:
    """G g G^T of each filter: taps (panels, 9, columns) -> out (panels, (m + 2)^2, columns). Both
    are float32, or int16 within -255..255, whose points are exact."""
    whole = taps.dtype == np.int16
    g = WHOLE_FILTERS[m] if whole else filter_matrix(m)
    side = m + 2
    for panel, made in zip(taps, out, strict=True):
        for first in range(0, taps.shape[2], CHUNK):
            part = slice(first, first + CHUNK)
            filters = panel[:, part].astype(np.int16 if whole else np.float64)
            lines = np.empty((side, 3, filters.shape[1]), filters.dtype)
            _times(g, filters.reshape(3, 3, -1).swapaxes(0, 1), lines)
            _times(g, lines.swapaxes(0, 1), made[:, part].reshape(side, side, -1))


def _times(matrix: Array, x: Array, out: Array) -> None:
    """The matrix (n, 3) times x (3, ...), written to `out`. The first row takes the first of the
    three alone, the last one the last, and of those in between each two differ in the sign of the
    second."""
    first, *between, last = matrix.tolist()  # whose numbers leave dtypes as they are
    np.multiply(x[0], first[0], out=out[0], casting="same_kind")
    for row, (a, b, c) in enumerate(between[::2]):
        even, odd = x[0] * a + x[2] * c, x[1] * b
        np.add(even, odd, out=out[1 + 2 * row], casting="same_kind")
        np.subtract(even, odd, out=out[2 + 2 * row], casting="same_kind")
    np.multiply(x[2], last[2], out=out[-1], casting="same_kind")
