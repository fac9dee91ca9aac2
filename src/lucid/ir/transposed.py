"""Transposed convolutions, which importers express in existing ops."""

from __future__ import annotations

from collections.abc import Callable

from lucid.ir.graph import Value
from lucid.ir.ops import Constant, Conv2d, Expand, Gather, Pad, Permute, Reshape, Slice
from lucid.ir.ops.windows import Padding, Pair
from lucid.ir.types import Shape

Apply = Callable[..., Value]
"""Adds an op to a graph: `apply(op, *operands)` is its result."""


def transposed_convolution(
    apply: Apply,
    x: Value,
    weight: Value,
    bias: Value | None,
    stride: Pair,
    cut: Padding,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Value:
    """The gradient of a convolution: each pixel of x adds a window of weights to the result.

    x: (N, C, H, W), weight: (C, O/groups, KH, KW), bias: (O) -> (N, O, OH, OW). The windows are
    `stride` apart; `cut` (top, left, bottom, right) rows and columns are cut off, negative ones
    added. Where windows do not overlap, each pixel becomes a block of pixels by a 1x1 convolution;
    else it is the convolution of x, zeros between its pixels, by the weights turned around. Raises
    ShapeError where the operands do not fit.
    """
    taps = _ints(weight.type.shape[2:])
    weight = _by_output(apply, weight, groups)
    if stride == taps and (dilation, cut) == ((1, 1), (0, 0, 0, 0)):
        return _blocks(apply, x, weight, bias, stride, groups)
    top, left, bottom, right = cut
    reach = [d * (k - 1) for d, k in zip(dilation, taps, strict=True)]
    x = _with_gaps(apply, x, stride)
    # The gaps behind the last pixels are stride - 1 zeros that the padding need not hold.
    sides = [
        (reach[0] - top, reach[0] - bottom - (stride[0] - 1)),
        (reach[1] - left, reach[1] - right - (stride[1] - 1)),
    ]
    for axis, (before, after) in enumerate(sides, start=2):
        (size,) = _ints(x.type.shape[axis : axis + 1])
        if min(before, after) < 0:
            x = apply(Slice(axis, max(0, -before), size - max(0, -after)), x)
    for axis, count in enumerate(taps, start=2):
        weight = apply(Gather(axis), weight, apply(Constant(tuple(range(count))[::-1], "i64")))
    (top, bottom), (left, right) = ((max(0, a), max(0, b)) for a, b in sides)
    op = Conv2d((1, 1), (top, left, bottom, right), dilation, groups)
    return apply(op, x, weight, *([] if bias is None else [bias]))


def _by_output(apply: Apply, weight: Value, groups: int) -> Value:
    """(C, O/groups, KH, KW) as (O, C/groups, KH, KW)."""
    channels, out, *taps = _ints(weight.type.shape)
    inner = channels // max(1, groups)
    weight = apply(Reshape((groups, inner, out, *taps)), weight)
    return apply(Reshape((groups * out, inner, *taps)), apply(Permute((0, 2, 1, 3, 4)), weight))


def _blocks(
    apply: Apply, x: Value, weight: Value, bias: Value | None, stride: Pair, groups: int
) -> Value:
    """Each pixel as a block of `stride` pixels. weight: (O, C/groups, KH, KW)."""
    out, inner, rows, columns = _ints(weight.type.shape)
    count = out * rows * columns
    products = apply(Reshape((count, inner, 1, 1)), apply(Permute((0, 2, 3, 1)), weight))
    operands = [x, products]
    if bias is not None:
        each = apply(Expand((out, rows * columns)), apply(Reshape((out, 1)), bias))
        operands.append(apply(Reshape((count,)), each))
    y = apply(Conv2d(groups=groups), *operands)
    batch, _, height, width = y.type.shape
    apart = apply(Reshape((batch, out, *stride, height, width)), y)
    blocks = apply(Permute((0, 1, 4, 2, 5, 3)), apart)
    high, wide = _ints((height, width))
    return apply(Reshape((batch, out, high * rows, wide * columns)), blocks)


def _with_gaps(apply: Apply, x: Value, stride: Pair) -> Value:
    """x with stride - 1 zeros after each of its pixels, along both axes."""
    if stride == (1, 1):
        return x
    batch, channels, *size = x.type.shape
    height, width = _ints(tuple(size))
    apart = apply(Reshape((batch, channels, height, 1, width, 1)), x)
    padded = apply(Pad((0,) * 6, (0, 0, 0, stride[0] - 1, 0, stride[1] - 1)), apart)
    return apply(Reshape((batch, channels, height * stride[0], width * stride[1])), padded)


def _ints(shape: Shape) -> tuple[int, ...]:
    """Dimensions that do not depend on the batch. Raises ShapeError."""
    return Conv2d().integers(*shape)
