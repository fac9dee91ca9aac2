"""Convolution over one, two and three spatial axes, with stride, asymmetric padding, dilation and
groups."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lucid.ir.ops.base import Array, Op, op
from lucid.ir.ops.windows import (
    SHAPES,
    Padding,
    Pair,
    Sizes,
    Triple,
    VolumePadding,
    padded,
    spatial_result,
    taps,
)
from lucid.ir.types import TensorType

TAPS = {1: "K", 2: "KH, KW", 3: "KD, KH, KW"}


class Convolution(Op):
    """Base of convolutions, which differ by their number of spatial `axes`.

    x: (N, C, *sizes), weight: (O, C/groups, *kernel), bias: (O) -> (N, O, *sizes). Output channel o
    reads the input channels of its group, o // (O/groups). Outside the input x is zero. Stride and
    dilation have a number for each axis, padding all before the axes, then all after them.
    """

    images_apart = True
    axes: ClassVar[int]

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int

    def with_padding(self, padding: Sizes) -> Convolution:
        """The same with other padding."""
        return dataclasses.replace(self, padding=padding)  # type: ignore[call-arg]  # of subclasses

    def infer(
        self, x: TensorType, weight: TensorType, bias: TensorType | None = None
    ) -> TensorType:
        self.require_float(x=x, weight=weight, bias=bias)
        rank = 2 + self.axes
        self.require(x.rank == rank, f"x must be {SHAPES[self.axes]}, got {x}")
        kind = f"(O, C/groups, {TAPS[self.axes]})"
        self.require(weight.rank == rank, f"weight must be {kind}, got {weight}")
        channels, out, per_group, *kernel = self.integers(x.shape[1], *weight.shape)
        self.require(self.groups > 0, f"groups must be positive, got {self.groups}")
        self.require(
            channels == per_group * self.groups,
            f"x has {channels} channels, but the weight takes {per_group} in each of"
            f" {self.groups} groups ({x}, {weight})",
        )
        self.require(
            out % self.groups == 0,
            f"{out} output channels cannot be split into {self.groups} groups",
        )
        self.require(bias is None or bias.shape == (out,), f"bias must be f32[{out}], got {bias}")
        size = spatial_result(
            self, x, tuple(kernel), self.stride, self.padding, self.dilation, axes=self.axes
        )
        return x.with_shape((x.shape[0], out, *size))


@op("conv1d")
class Conv1d(Convolution):
    """y[n,o,i] = bias[o] + sum over c, u of x[n, c, i*s+u*d-left] * w[o,c,u].

    x: (N, C, L), weight: (O, C/groups, K), bias: (O) -> (N, O, OL). Output channel o reads the
    input channels of its group, o // (O/groups). Outside the input x is zero. Padding is
    (left, right).
    """

    axes = 1

    stride: tuple[int] = (1,)
    padding: Pair = (0, 0)
    dilation: tuple[int] = (1,)
    groups: int = 1

    def evaluate(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """As images of one line."""
        left, right = self.padding
        plane = Conv2d((1, *self.stride), (0, left, 0, right), (1, *self.dilation), self.groups)
        return plane.evaluate(x[:, :, None], weight[:, :, None], bias)[:, :, 0]


@op("conv2d")
class Conv2d(Convolution):
    """y[n,o,i,j] = bias[o] + sum over c, u, v of x[n, c, i*s+u*d-top, j*s+v*d-left] * w[o,c,u,v].

    x: (N, C, H, W), weight: (O, C/groups, KH, KW), bias: (O) -> (N, O, OH, OW). Output channel o
    reads the input channels of its group, o // (O/groups). Outside the input x is zero.
    Padding is (top, left, bottom, right).
    """

    axes = 2

    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def evaluate(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        kind = TensorType("f32", x.shape), TensorType("f32", weight.shape)
        out = self.infer(*kind).concrete(1)
        kernel: Pair = (weight.shape[2], weight.shape[3])
        x = padded(x, self.padding)
        size: Pair = (out[2], out[3])
        if weight.shape[1] == 1 and self.groups > 1:
            y = self._depthwise(x, weight, size)
        elif kernel == (1, 1):
            y = self._product(next(taps(x, kernel, self.stride, (1, 1), size)), weight, size)
        else:
            y = np.empty(out, dtype=np.result_type(x, weight))
            for n in range(len(x)):  # one image at a time: the windows are KH * KW times its size
                y[n : n + 1] = self._product(
                    self._windows(x[n : n + 1], kernel, size), weight, size
                )
        return y if bias is None else y + bias[:, None, None]

    def _windows(self, x: Array, kernel: Pair, size: Pair) -> Array:
        """A view (N, C, KH, KW, OH, OW) of the padded x: every window, tap by tap."""
        n, c, h, w = x.strides
        (sh, sw), (dh, dw) = self.stride, self.dilation
        strides = (n, c, h * dh, w * dw, h * sh, w * sw)
        return as_strided(x, x.shape[:2] + kernel + size, strides, writeable=False)

    def _product(self, columns: Array, weight: Array, size: Pair) -> Array:
        """Batched matrix products, (groups, O/g, K) @ (N, groups, K, OH*OW)."""
        n, out, inner = len(columns), len(weight), weight[0].size
        matrix = weight.reshape(self.groups, out // self.groups, inner)
        pixels = columns.reshape(n, self.groups, inner, size[0] * size[1])
        y: Array = np.matmul(matrix, pixels)
        return y.reshape(n, out, *size)

    def _depthwise(self, x: Array, weight: Array, size: Pair) -> Array:
        """One input channel a group: a sum over taps, without matrix products."""
        out, _, *kernel = weight.shape
        flat = weight.reshape(self.groups, out // self.groups, -1, 1, 1)
        shape = (len(x), self.groups, out // self.groups, *size)
        y = np.zeros(shape, dtype=np.result_type(x, weight))
        views = taps(x, (kernel[0], kernel[1]), self.stride, self.dilation, size)
        for t, view in enumerate(views):
            y += view[:, :, None] * flat[:, :, t]
        return y.reshape(len(x), out, *size)


@op("conv3d")
class Conv3d(Convolution):
    """y[n,o,h,i,j] = bias[o] + sum over c, t, u, v of
    x[n, c, h*s+t*d-front, i*s+u*d-top, j*s+v*d-left] * w[o,c,t,u,v].

    x: (N, C, D, H, W), weight: (O, C/groups, KD, KH, KW), bias: (O) -> (N, O, OD, OH, OW). Output
    channel o reads the input channels of its group, o // (O/groups). Outside the input x is zero.
    Padding is (front, top, left, back, bottom, right).
    """

    axes = 3

    stride: Triple = (1, 1, 1)
    padding: VolumePadding = (0, 0, 0, 0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1

    def evaluate(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """A sum over the taps in depth, each the convolution of the slices that it meets."""
        kind = TensorType("f32", x.shape), TensorType("f32", weight.shape)
        out = self.infer(*kind).concrete(1)
        x = padded(x, self.padding)
        plane = Conv2d(self.stride[1:], dilation=self.dilation[1:], groups=self.groups)
        y = np.zeros((len(x), *out[1:]), dtype=np.result_type(x, weight))
        depth = (out[2] - 1) * self.stride[0] + 1
        for tap in range(weight.shape[2]):
            first = tap * self.dilation[0]
            met = x[:, :, first : first + depth : self.stride[0]].swapaxes(1, 2)
            slices = plane.evaluate(met.reshape(len(x) * out[2], *met.shape[2:]), weight[:, :, tap])
            y += slices.reshape(len(x), out[2], *slices.shape[1:]).swapaxes(1, 2)
        return y if bias is None else y + bias[:, None, None, None]
