"""Sliding windows over the two spatial axes, shared by convolution and pooling.

Padding is (top, left, bottom, right) everywhere; kernel, stride and dilation are (height, width).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lucid.ir.ops.base import Array, Op
from lucid.ir.types import TensorType

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]


def extent(
    size: int, kernel: int, stride: int, pads: Pair, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """How many windows fit along one axis; `pads` is what lies before and after it.

    With `ceil_mode` the last window may hang over the end, but every window must start inside the
    input or the padding before it (PyTorch's rule).
    """
    room = size + pads[0] + pads[1] - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    return min(-(-room // stride) + 1, -(-(size + pads[0]) // stride))


def spatial_result(
    op: Op,
    x: TensorType,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
) -> Pair:
    """The output height and width for x: (N, C, H, W), with all checks. Raises ShapeError."""
    op.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
    height, width = op.integers(*x.shape[2:])
    op.require(
        all(len(pair) == 2 for pair in (kernel, stride, dilation)) and len(padding) == 4,
        "kernel, stride and dilation are pairs, padding is (top, left, bottom, right)",
    )
    op.require(min(*kernel, *stride, *dilation) > 0, "kernel, stride, dilation must be positive")
    op.require(min(padding) >= 0, f"padding must not be negative, got {padding}")
    top, left, bottom, right = padding
    rows = extent(height, kernel[0], stride[0], (top, bottom), dilation[0], ceil_mode)
    columns = extent(width, kernel[1], stride[1], (left, right), dilation[1], ceil_mode)
    op.require(
        rows > 0 and columns > 0,
        f"the {kernel[0]}x{kernel[1]} window (dilation {dilation}) is larger than the padded input"
        f" of {height + top + bottom}x{width + left + right}",
    )
    return rows, columns


def padded(x: Array, padding: Padding, fill: float = 0.0) -> Array:
    """x (N, C, H, W) with a border of `fill`; x itself where there is none."""
    top, left, bottom, right = padding
    if not any(padding):
        return x
    n, c, h, w = x.shape
    result = np.full((n, c, h + top + bottom, w + left + right), fill, dtype=x.dtype)
    result[:, :, top : top + h, left : left + w] = x
    return result


def taps(x: Array, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Iterator[Array]:
    """For each tap of the window, row by row, the (N, C, OH, OW) view of x that it reads."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            yield x[
                :,
                :,
                top : top + (out[0] - 1) * stride[0] + 1 : stride[0],
                left : left + (out[1] - 1) * stride[1] + 1 : stride[1],
            ]


def adaptive_bounds(size: int, out: int) -> tuple[Array, Array]:
    """Where each of `out` windows that cover an axis of `size` starts and ends (PyTorch's rule).

    Window i is floor(i * size / out) to ceil((i + 1) * size / out), so that windows may overlap.
    """
    index = np.arange(out, dtype=np.int64)
    return index * size // out, -(-(index + 1) * size // out)
