"""Pooling over sliding windows, with PyTorch's rules for borders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.quantisation import EIGHT_BITS
from lucid.ir.ops.windows import (
    Padding,
    Pair,
    Sizes,
    adaptive_bounds,
    extent,
    padded,
    spatial_result,
    taps,
)
from lucid.ir.types import DTYPES, FLOATS, TensorType

ORDERED = (*FLOATS, *EIGHT_BITS)
"""What maxima are taken of: rounding to 8 bits keeps the order."""


@op("max_pool2d")
class MaxPool2d(Op):
    """y[n,c,i,j] = max over x[n,c,window(i,j)], where x outside the input is the least number. NaN
    wins.

    x: f32, u8 or i8 (N, C, H, W) -> the same (N, C, OH, OW). Padding is (top, left, bottom, right).
    With `ceil_mode` the last window may hang over the end if it starts inside the input or the
    padding before it.
    """

    takes = ORDERED
    images_apart = True

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        size = spatial_result(
            self, x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        return x.with_shape((*x.shape[:2], *size))

    def evaluate(self, x: Array) -> Array:
        *_, rows, columns = self.infer(TensorType("f32", x.shape)).concrete(1)
        border = _reach(self.padding, self.kernel, self.stride, self.dilation, (rows, columns), x)
        least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        views = taps(
            padded(x, border, least), self.kernel, self.stride, self.dilation, (rows, columns)
        )
        y = next(views).copy()
        for view in views:
            np.maximum(y, view, out=y)
        return y


@op("max_pool_indices")
class MaxPoolIndices(Op):
    """y[n,c,i...] = where the largest element of x[n,c,window(i...)] lies, of equal ones the first.

    x: (N, C, *sizes) of one to three axes -> i64 (N, C, *out), counted row by row over *sizes, or
    with `column_major` from the first axis on; `whole`: over all of x, whose images and channels
    lie behind each other. The last NaN of a window comes before all numbers, as in PyTorch. Windows
    as in `MaxPool2d`: padding is all that lies before the axes, then all after them; of a window
    without an element greater than -inf, its first one in x counts, and along an axis where it has
    none there, the last of x.
    """

    kernel: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    ceil_mode: bool = False
    whole: bool = False
    column_major: bool = False

    def keeps_images_apart(self, operands: Sequence[TensorType], result: TensorType) -> bool:
        return not self.whole

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        axes = len(self.kernel)
        self.require(axes in (1, 2, 3), f"windows have one to three axes, got {self.kernel}")
        size = spatial_result(
            self, x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode, axes
        )
        return TensorType("i64", (*x.shape[:2], *size))

    def evaluate(self, x: Array) -> Array:
        out = self.infer(TensorType("f32", x.shape)).concrete(1)[2:]
        sizes = x.shape[2:]
        steps = np.cumprod((1, *(sizes if self.column_major else sizes[::-1])))[:-1]
        steps = steps if self.column_major else steps[::-1]
        best = np.full((*x.shape[:2], *out), -np.inf)
        axes = list(zip(self.stride, self.padding, self.dilation, out, strict=False))
        starts = [np.arange(n) * s - p for s, p, _, n in axes]
        inner = [
            np.where(a < 0, a % d, a).clip(max=size - 1)
            for a, d, size in zip(starts, self.dilation, sizes, strict=True)
        ]
        numbers = reduce(np.add, _grid([c * s for c, s in zip(inner, steps, strict=True)]))
        places = np.broadcast_to(numbers, best.shape).astype(np.int64)
        for tap in np.ndindex(*self.kernel):
            at = [t * d - p + np.arange(n) * s for t, (s, p, d, n) in zip(tap, axes, strict=True)]
            inside = [(a >= 0) & (a < size) for a, size in zip(at, sizes, strict=True)]
            clipped = [np.clip(a, 0, size - 1) for a, size in zip(at, sizes, strict=True)]
            met: tuple[Any, ...] = (slice(None), slice(None), *_grid(clipped))
            values = x[met]
            exists = reduce(np.logical_and, _grid(inside))
            better = exists & ((values > best) | np.isnan(values))
            numbers = reduce(np.add, _grid([c * s for c, s in zip(clipped, steps, strict=True)]))
            best = np.where(better, values, best)
            places = np.where(better, numbers, places)
        if self.whole:
            first = np.arange(len(x) * x.shape[1]) * int(np.prod(sizes))
            places += first.reshape(*x.shape[:2], *(1,) * len(sizes))
        return places


@op("avg_pool2d")
class AvgPool2d(Op):
    """y[n,c,i,j] = sum(x[n,c,window(i,j)]) / divisor, where x outside the input is zero.

    x: (N, C, H, W) -> (N, C, OH, OW). Padding is (top, left, bottom, right). The divisor is
    `divisor` where given; else the number of the window's pixels that lie in the input or, with
    `count_include_pad`, in the padded input (what `ceil_mode` adds beyond it never counts).
    """

    images_apart = True

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor: int | None = None
    dilation: Pair = (1, 1)

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        self.require(self.divisor != 0, "the divisor must not be 0")
        size = spatial_result(
            self, x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )
        return x.with_shape((*x.shape[:2], *size))

    def evaluate(self, x: Array) -> Array:
        *_, rows, columns = self.infer(TensorType("f32", x.shape)).concrete(1)
        border = _reach(self.padding, self.kernel, self.stride, self.dilation, (rows, columns), x)
        y = np.zeros((*x.shape[:2], rows, columns), dtype=x.dtype)
        views = taps(padded(x, border), self.kernel, self.stride, self.dilation, (rows, columns))
        for view in views:
            y += view
        y /= self.divisors(x.shape[2], x.shape[3]).astype(x.dtype)
        return y

    def divisors(self, height: int, width: int) -> Array:
        """What each window's sum is divided by, (OH, OW) integers, never 0."""
        top, left, bottom, right = self.padding
        rows = self._counts(height, 0, (top, bottom))
        columns = self._counts(width, 1, (left, right))
        if self.divisor is not None:
            return np.full((rows.size, columns.size), self.divisor)
        # A window wholly in padding that does not count has the sum 0: keep its mean 0.
        counts: Array = np.outer(rows, columns)
        return counts.clip(min=1)

    def uniform_divisor(self, height: int, width: int) -> int | None:
        """The divisor where all windows have the same one, else None."""
        values = np.unique(self.divisors(height, width))
        return int(values[0]) if values.size == 1 else None

    def _counts(self, size: int, axis: int, pads: Pair) -> Array:
        """How many of each window's pixels count, along one axis."""
        kernel, stride, dilation = self.kernel[axis], self.stride[axis], self.dilation[axis]
        count = extent(size, kernel, stride, pads, dilation, self.ceil_mode)
        places = np.arange(count)[:, None] * stride - pads[0] + np.arange(kernel) * dilation
        first, last = (-pads[0], size + pads[1]) if self.count_include_pad else (0, size)
        counts: Array = ((places >= first) & (places < last)).sum(axis=1)
        return counts


@op("integer_sum_pool2d")
class IntegerSumPool2d(Op):
    """y[n,c,i,j] = sum of x[n,c,window(i,j)] - zero_point, where x outside the input is the zero
    point: an average pool of quantised numbers before it is divided.

    x: u8 or i8 (N, C, H, W) -> i32 (N, C, OH, OW). Exact: windows have fewer than 2^23 elements.
    Padding and `ceil_mode` as in `avg_pool2d`.
    """

    takes = EIGHT_BITS
    images_apart = True

    kernel: Pair
    stride: Pair
    padding: Padding = (0, 0, 0, 0)
    ceil_mode: bool = False
    dilation: Pair = (1, 1)
    zero_point: int = 0

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        area = self.kernel[0] * self.kernel[1]
        self.require(area < 1 << 23, f"windows of {area} elements have sums beyond 32 bits")
        bounds = np.iinfo(DTYPES[x.dtype])
        inside = bounds.min <= self.zero_point <= bounds.max
        self.require(inside, f"the zero point {self.zero_point} is no {x.dtype}")
        return TensorType("i32", (*x.shape[:2], *self._size(x)))

    def _size(self, x: TensorType) -> tuple[int, ...]:
        """The lines and columns of the result."""
        return spatial_result(
            self, x, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def evaluate(self, x: Array) -> Array:
        rows, columns = self._size(TensorType("u8", x.shape))
        border = _reach(self.padding, self.kernel, self.stride, self.dilation, (rows, columns), x)
        steps = padded(x.astype(np.int32) - self.zero_point, border)
        y = np.zeros((*x.shape[:2], rows, columns), np.int32)
        for view in taps(steps, self.kernel, self.stride, self.dilation, (rows, columns)):
            y += view
        return y


class AdaptivePool2d(Op):
    """Base of the pools that are told the size of their result: (N, C, H, W) -> (N, C, *size)."""

    images_apart = True

    size: Pair

    def infer(self, x: TensorType) -> TensorType:
        self.require_taken(x=x)
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        height, width = self.integers(*x.shape[2:])
        wanted = len(self.size) == 2 and min(self.size) > 0
        self.require(wanted, f"size must be two positive numbers, got {self.size}")
        self.require(height > 0 and width > 0, f"there is nothing to pool in {x}")
        return x.with_shape((*x.shape[:2], *self.size))

    def _pooled(self, x: Array, mix: Callable[..., Array]) -> Array:
        """`mix` over each window."""
        y = np.empty((*x.shape[:2], *self.size), x.dtype)
        (tops, bottoms), (lefts, rights) = (
            adaptive_bounds(d, o) for d, o in zip(x.shape[2:], self.size, strict=True)
        )
        for i, (top, bottom) in enumerate(zip(tops, bottoms, strict=True)):
            for j, (left, right) in enumerate(zip(lefts, rights, strict=True)):
                y[:, :, i, j] = mix(x[:, :, top:bottom, left:right], axis=(2, 3))
        return y


@op("adaptive_avg_pool2d")
class AdaptiveAvgPool2d(AdaptivePool2d):
    """y[n,c,i,j] = mean over x[n, c, floor(i H/OH):ceil((i+1) H/OH), the same for columns].

    x: (N, C, H, W) -> (N, C, *size), with torch's windows (`adaptive_bounds`).
    """

    size: Pair

    def evaluate(self, x: Array) -> Array:
        return self._pooled(x, np.mean)


@op("adaptive_max_pool2d")
class AdaptiveMaxPool2d(AdaptivePool2d):
    """y[n,c,i,j] = max over x[n, c, floor(i H/OH):ceil((i+1) H/OH), the same for columns].

    NaN wins. x: f32, u8 or i8 (N, C, H, W) -> the same (N, C, *size), with torch's windows
    (`adaptive_bounds`).
    """

    takes = ORDERED

    size: Pair

    def evaluate(self, x: Array) -> Array:
        return self._pooled(x, np.max)


def _grid(numbers: Sequence[Array]) -> list[Array]:
    """Numbers along each axis, such that they broadcast to all of them."""
    return list(np.meshgrid(*numbers, indexing="ij", sparse=True))


def _reach(
    padding: Padding, kernel: Pair, stride: Pair, dilation: Pair, out: Pair, x: Array
) -> Padding:
    """The border that the windows really read: `ceil_mode` may need more than the padding."""
    top, left, bottom, right = padding
    needed = [(out[a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1)]
    below = max(bottom, needed[0] - top - x.shape[2])
    beside = max(right, needed[1] - left - x.shape[3])
    return (top, left, below, beside)
