"""Convolutions over one or three axes as convolutions of images, which is what kernels compute."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lucid.ir.ops import Conv1d, Conv2d, Conv3d, Convolution

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slices:
    """Which slices of a volume a slice of the result is made of: `taps` of the `volume` there are,
    `dilation` apart. The result has `out_volume`."""

    taps: int
    stride: int
    padding: int
    dilation: int
    volume: int
    out_volume: int


@dataclass(frozen=True)
class Plane:
    """A convolution of images that is another one over one or three axes.

    A line (N, C, L) is an image of height 1. Of a volume (N, C, D, H, W) each slice is an image;
    where windows are one slice deep that is all. Windows of one pixel in each slice are those of a
    column in images of D lines, H * W wide. Of all others `slices` tells which slices of x make one
    of the result: their channels, side by side, are the input channels of `weight`.

    `x`, `weight` and `y` are shapes of rank 4.
    """

    op: Conv2d
    x: Shape
    weight: Shape
    y: Shape
    slices: Slices | None = None

    @staticmethod
    def of(op: Convolution, x: Shape, weight: Shape, y: Shape) -> Plane:
        """The plane of a convolution with operands and a result of these shapes."""
        if isinstance(op, Conv2d):
            return Plane(op, x, weight, y)
        if isinstance(op, Conv1d):
            left, right = op.padding
            plane = Conv2d((1, *op.stride), (0, left, 0, right), (1, *op.dilation), op.groups)
            x, weight, y = ((s[0], s[1], 1, s[2]) for s in (x, weight, y))
            return Plane(plane, x, weight, y)
        assert isinstance(op, Conv3d)
        front, top, left, back, bottom, right = op.padding
        flat = Conv2d(op.stride[1:], (top, left, bottom, right), op.dilation[1:], op.groups)
        columns = weight[3:] == (1, 1) and flat.stride == (1, 1) and not any(flat.padding)
        if columns and weight[2] > 1:
            stride, dilation = (op.stride[0], 1), (op.dilation[0], 1)
            deep = Conv2d(stride, (front, 0, back, 0), dilation, op.groups)
            x, weight, y = ((*s[:3], prod(s[3:])) for s in (x, weight, y))
            return Plane(deep, x, weight, y)
        images, out = ((s[0] * s[2], s[1], *s[3:]) for s in (x, y))
        if weight[2] == 1 and op.stride[0] == 1 and not front + back:
            return Plane(flat, images, (*weight[:2], *weight[3:]), out)
        slices = Slices(weight[2], op.stride[0], front, op.dilation[0], x[2], y[2])
        return Plane(flat, images, (weight[0], weight[1] * weight[2], *weight[3:]), out, slices)
