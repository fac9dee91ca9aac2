"""Grids of affine maps, for `GridSample`, written in other ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from lucid.ir.ops import Add, Array, Mul, Op, Reshape, Slice
from lucid.ir.types import Dim

T = TypeVar("T")


def affine_grid(
    apply: Callable[..., T],
    constant: Callable[[Array], T],
    theta: T,
    batch: int | Dim,
    size: Sequence[int],
    align_corners: bool,
) -> T:
    """theta: (N, D, D + 1) -> (N, *size, D): to every pixel of an image of D axes, the last one
    first, the map's result for its coordinates, of which -1 and 1 are the edges of the image, or
    with `align_corners` the middles of its outer pixels.

    `apply` writes an op over operands, `constant` a known array.
    torch.nn.functional.affine_grid, ONNX's AffineGrid.
    """
    rank = len(size)

    def column(index: int) -> T:
        op: Op = Slice(2, index, index + 1)
        return apply(Reshape((batch, *(1,) * rank, rank)), apply(op, theta))

    grid = column(rank)
    for index, count in enumerate(reversed(size)):
        along = coordinates(count, align_corners).reshape(-1, *(1,) * (index + 1))
        grid = apply(Add(), apply(Mul(), column(index), constant(along)), grid)
    return grid


def coordinates(count: int, align_corners: bool) -> Array:
    """Those of the pixels along an axis; of one alone it is 0."""
    if count == 1:
        return np.zeros(1)
    ends = np.linspace(-1, 1, count)
    return ends if align_corners else ends * ((count - 1) / count)
