"""Sliding windows over spatial axes, shared by convolution and pooling.

Kernel, stride and dilation have a number for each axis, (height, width) of images; padding has all
numbers before the axes, then all after them: (top, left, bottom, right) of images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lucid.ir.ops.base import Array, Op
from lucid.ir.types import TensorType, size_text

Sizes = tuple[int, ...]
Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
Triple = tuple[int, int, int]
VolumePadding = tuple[int, int, int, int, int, int]

SHAPES = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}
"""What a tensor with so many spatial axes is called in messages."""
WINDOWS = {
    1: "kernel, stride and dilation are single numbers, padding is (left, right)",
    2: "kernel, stride and dilation are pairs, padding is (top, left, bottom, right)",
    3: "kernel, stride and dilation are triples, padding is"
    " (front, top, left, back, bottom, right)",
}


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
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes = (1, 1),
    ceil_mode: bool = False,
    axes: int = 2,
) -> Sizes:
    """The spatial sizes of the result for x: (N, C, *sizes), with all checks. Raises ShapeError."""
    op.require(x.rank == 2 + axes, f"x must be {SHAPES[axes]}, got {x}")
    sizes = op.integers(*x.shape[2:])
    op.require(
        all(len(each) == axes for each in (kernel, stride, dilation)) and len(padding) == 2 * axes,
        WINDOWS[axes],
    )
    op.require(min(*kernel, *stride, *dilation) > 0, "kernel, stride, dilation must be positive")
    op.require(min(padding) >= 0, f"padding must not be negative, got {padding}")
    sides = list(zip(padding[:axes], padding[axes:], strict=True))
    out = tuple(map(extent, sizes, kernel, stride, sides, dilation, [ceil_mode] * axes))
    whole = [size + sum(pads) for size, pads in zip(sizes, sides, strict=True)]
    op.require(
        min(out) > 0,
        f"the {size_text(kernel)} window (dilation {dilation}) is larger than the padded input"
        f" of {size_text(whole)}",
    )
    return out


def padded(x: Array, padding: Sizes, fill: float = 0.0) -> Array:
    """x (N, C, *sizes) with a border of `fill`; x itself where there is none."""
    if not any(padding):
        return x
    axes = x.ndim - 2
    before, after = padding[:axes], padding[axes:]
    sizes = [d + a + b for d, a, b in zip(x.shape[2:], before, after, strict=True)]
    result = np.full((*x.shape[:2], *sizes), fill, dtype=x.dtype)
    inside = [slice(a, a + d) for a, d in zip(before, x.shape[2:], strict=True)]
    result[(slice(None), slice(None), *inside)] = x
    return result


def taps(x: Array, kernel: Sizes, stride: Sizes, dilation: Sizes, out: Sizes) -> Iterator[Array]:
    """For each tap of the window, the last axis fastest, the (N, C, *out) view of x that it
    reads."""
    for tap in np.ndindex(*kernel):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        ends = [f + (n - 1) * s + 1 for f, n, s in zip(starts, out, stride, strict=True)]
        met = [slice(f, e, s) for f, e, s in zip(starts, ends, stride, strict=True)]
        yield x[(slice(None), slice(None), *met)]


def adaptive_bounds(size: int, out: int) -> tuple[Array, Array]:
    """Where each of `out` windows that cover an axis of `size` starts and ends (PyTorch's rule).

    Window i is floor(i * size / out) to ceil((i + 1) * size / out), so that windows may overlap.
    """
    index = np.arange(out, dtype=np.int64)
    return index * size // out, -(-(index + 1) * size // out)
