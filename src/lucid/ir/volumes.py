"""Pools and resizes over lines and volumes, which importers express in those over images.

A line (N, C, L) is an image of height 1. What works axis by axis on a volume (N, C, D, H, W) goes
over its slices first, as images of their own, and over the depth then, where pixels are channels.
Memory is channels last, so that all of these images are views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lucid.ir.graph import Value
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    MaxPool2d,
    Op,
    Permute,
    Reshape,
)
from lucid.ir.ops.windows import Padding, Pair, Sizes
from lucid.ir.transposed import Apply
from lucid.ir.types import Dim

TO_SLICES = (0, 2, 1, 3, 4)
"""(N, C, D, H, W) as (N, D, C, H, W), and back."""
TO_DEPTHS = (0, 3, 4, 1, 2)
"""(N, C, D, H, W) as (N, H, W, C, D), and back."""
T = TypeVar("T")
NONE = -1
"""The axis that a line and a depth lack as images: of size 1."""

Over = Callable[[int, int], Op]
"""From two of the axes (or NONE) to an op over images."""


@dataclass(frozen=True)
class Windows:
    """Windows over one to three axes: a number each, of the padding all before the axes, then all
    after them."""

    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes

    def over(self, *axes: int) -> tuple[Pair, Pair, Padding, Pair]:
        """Kernel, stride, padding and dilation over two of the axes."""
        count = len(self.kernel)
        top, left = picked(self.padding[:count], axes, 0)
        bottom, right = picked(self.padding[count:], axes, 0)
        kernel, stride, dilation = (
            picked(sizes, axes, 1) for sizes in (self.kernel, self.stride, self.dilation)
        )
        return kernel, stride, (top, left, bottom, right), dilation


def picked(sizes: Sequence[T], axes: Sequence[int], default: T) -> tuple[T, T]:
    """What is said of two of the axes; `default` of NONE."""
    first, second = (default if axis == NONE else sizes[axis] for axis in axes)
    return first, second


def max_pool(apply: Apply, x: Value, windows: Windows, ceil_mode: bool = False) -> Value:
    """The largest element of each window over one to three axes."""
    return axis_by_axis(
        apply, x, lambda *axes: MaxPool2d(*windows.over(*axes), ceil_mode=ceil_mode)
    )


def avg_pool(
    apply: Apply,
    x: Value,
    windows: Windows,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    """The mean of each window over one to three axes; `divisor` as in `AvgPool2d`. How many pixels
    count is a product over the axes, so that each axis divides by its own."""

    def over(*axes: int) -> Op:
        kernel, stride, padding, dilation = windows.over(*axes)
        own = 1 if axes == (1, 2) and divisor is not None else divisor
        return AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad, own, dilation)

    return axis_by_axis(apply, x, over)


def adaptive_pool(apply: Apply, x: Value, size: Sizes, largest: bool) -> Value:
    """The maximum or the mean of windows that cover one to three axes, `size` of them."""
    kind = AdaptiveMaxPool2d if largest else AdaptiveAvgPool2d
    return axis_by_axis(apply, x, lambda *axes: kind(picked(size, axes, 1)))


def axis_by_axis(apply: Apply, x: Value, over: Over) -> Value:
    """What works axis by axis on images, on x: (N, C, *sizes) of one to three axes."""
    if x.type.rank == 3:
        return _over_lines(apply, x, over(NONE, 0))
    if x.type.rank == 4:
        return apply(over(0, 1), x)
    return _over_depths(apply, _over_slices(apply, x, over(1, 2)), over(0, NONE))


def _over_lines(apply: Apply, x: Value, op: Op) -> Value:
    """An op over images on lines."""
    n, c, length = x.type.shape
    y = apply(op, apply(Reshape((n, c, 1, length)), x))
    return apply(Reshape((n, c, y.type.shape[3])), y)


def _over_slices(apply: Apply, x: Value, op: Op) -> Value:
    """An op over images on each slice of volumes."""
    n, c, d, *size = x.type.shape
    y = apply(op, apply(Reshape((n * _int(d), c, *size)), apply(Permute(TO_SLICES), x)))
    volumes = apply(Reshape((n, d, *y.type.shape[1:])), y)
    return apply(Permute(TO_SLICES), volumes)


def _over_depths(apply: Apply, x: Value, op: Op) -> Value:
    """An op over images on volumes as images of D lines of one pixel, which has all channels of a
    slice."""
    n, c, d, height, width = x.type.shape
    channels = _int(c) * _int(height) * _int(width)
    y = apply(op, apply(Reshape((n, channels, d, 1)), apply(Permute(TO_DEPTHS), x)))
    depths = apply(Reshape((n, height, width, c, y.type.shape[2])), y)
    return apply(Permute(TO_DEPTHS), depths)


def _int(dim: int | Dim) -> int:
    """A dimension that does not depend on the batch. Raises ShapeError."""
    (size,) = MaxPool2d((1, 1), (1, 1)).integers(dim)
    return size
