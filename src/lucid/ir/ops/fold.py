"""Sums of overlapping windows, and what maxima of windows leave: the ways back from windows."""

from __future__ import annotations

from math import prod

import numpy as np

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.windows import Padding, Pair, extent, taps
from lucid.ir.types import TensorType


@op("fold")
class Fold(Op):
    """Windows added up where they lie: y[n,c,i,j] is the sum of what all windows have there.

    x: (N, C KH KW, L), L = OH OW windows, row by row -> (N, C, *size). Where windows lie is said as
    for a convolution of an image of this size; what lies in the padding is dropped. Padding is
    (top, left, bottom, right). torch.nn.functional.fold, ONNX's Col2Im over two axes.
    """

    images_apart = True

    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)

    def infer(self, x: TensorType) -> TensorType:
        self.require_float(x=x)
        self.require(x.rank == 3, f"x must be (N, C, L), got {x}")
        positive = min(*self.size, *self.kernel, *self.stride, *self.dilation) > 0
        self.require(positive, "size, kernel, stride and dilation must be positive")
        self.require(min(self.padding) >= 0, f"padding must not be negative, got {self.padding}")
        channels, length = self.integers(*x.shape[1:])
        each, windows = prod(self.kernel), self.windows()
        self.require(channels % each == 0, f"{channels} channels are no windows of {self.kernel}")
        fits = min(windows) > 0 and length == prod(windows)
        self.require(fits, f"{x} has {length} windows: an image of {self.size} has {windows}")
        return x.with_shape((x.shape[0], channels // each, *self.size))

    def windows(self) -> Pair:
        """How many windows lie below and beside one another."""
        top, left, bottom, right = self.padding
        rows, columns = (
            extent(self.size[a], self.kernel[a], self.stride[a], pads, self.dilation[a])
            for a, pads in enumerate(((top, bottom), (left, right)))
        )
        return rows, columns

    def evaluate(self, x: Array) -> Array:
        top, left, bottom, right = self.padding
        height, width = self.size
        windows = self.windows()
        channels = x.shape[1] // prod(self.kernel)
        whole = np.zeros((len(x), channels, height + top + bottom, width + left + right), x.dtype)
        parts = x.reshape(len(x), channels, prod(self.kernel), *windows)
        views = taps(whole, self.kernel, self.stride, self.dilation, windows)
        for number, view in enumerate(views):
            view += parts[:, :, number]
        return whole[:, :, top : top + height, left : left + width]


@op("max_unpool2d")
class MaxUnpool2d(Op):
    """y[n,c] is 0 but for x[n,c,i,j] at the pixel indices[n,c,i,j], counted row by row.

    x: (N, C, H, W), indices: i64, the same shape -> (N, C, *size). With `whole`, pixels are counted
    through all images and channels, as ONNX does. Of several at one pixel the last one stays; one
    outside the image is dropped. torch.nn.functional.max_unpool2d.
    """

    size: Pair
    whole: bool = False

    def infer(self, x: TensorType, indices: TensorType) -> TensorType:
        self.require_float(x=x)
        self.require(x.rank == 4, f"x must be (N, C, H, W), got {x}")
        fits = indices.dtype == "i64" and indices.shape == x.shape
        self.require(fits, f"indices for {x} are i64 of that shape, got {indices}")
        self.require(min(self.size) > 0, f"size must be positive, got {self.size}")
        return x.with_shape((*x.shape[:2], *self.size))

    def keeps_images_apart(self, operands: object, result: TensorType) -> bool:
        return not self.whole

    def evaluate(self, x: Array, indices: Array) -> Array:
        planes, pixels = x.shape[0] * x.shape[1], prod(self.size)
        y = np.zeros(planes * pixels, x.dtype)
        count = prod(x.shape[2:])
        at, values = indices.reshape(planes, count), x.reshape(planes, count)
        limit = planes * pixels if self.whole else pixels
        inside = (at >= 0) & (at < limit)
        if not self.whole:
            at = at + np.arange(planes)[:, None] * pixels
        y[at[inside]] = values[inside]
        return y.reshape(*x.shape[:2], *self.size)
