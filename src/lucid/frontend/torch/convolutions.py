"""PyTorch's convolutions, transposed ones included, and unfold.

Over lines (N, C, L) they are those over images of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lucid.frontend.torch.indexing import gathered
from lucid.frontend.torch.shapes import pad
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir import ops
from lucid.ir.graph import Value
from lucid.ir.types import Shape


@emits("convolution.default")
def convolution(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    if transposed:
        shape = (stride, padding, output_padding, groups, dilation)
        return transposed_conv(w, x, weight, bias, *shape)
    return conv(w, x, weight, bias, stride, padding, dilation, groups)


@emits("conv1d.default", "conv2d.default")
def conv(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    sides = [(p, p) for p in per_axis(padding, w.shape)]
    return _conv(w, x, weight, bias, stride, sides, dilation, groups)


@emits("conv1d.padding", "conv2d.padding")
def conv_same(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """Where the borders of "same" are odd, they are one more after than before."""
    taps = [w.size(d) for d in w.shape_of(weight)[2:]]
    steps = per_axis(dilation, w.shape)
    borders = [d * (k - 1) if padding == "same" else 0 for d, k in zip(steps, taps, strict=True)]
    sides = [(b // 2, b - b // 2) for b in borders]
    return _conv(w, x, weight, bias, stride, sides, dilation, groups)


def _conv(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    sides: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
) -> Value:
    """In one dimension: an image of one row. `sides`: padding before and after, by axis."""
    if len(w.shape) not in (3, 4):
        w.refuse(f"it is a convolution over {len(w.shape) - 2} axes")
    (top, bottom), (left, right) = ((0, 0), *sides)[-2:]
    padding = (top, left, bottom, right)
    op = ops.Conv2d(image(stride, w), padding, image(dilation, w), groups)
    operands = [as_image(w, x), as_image(w, weight), *([] if bias is None else [bias])]
    return w.reshape(w.emit(op, *operands), w.shape)


def per_axis(sizes: Any, shape: Shape) -> list[int]:
    """One size for each spatial axis."""
    given = [sizes] if isinstance(sizes, int) else list(sizes)
    return given * (len(shape) - 2) if len(given) == 1 else given


def image(sizes: Any, w: Writer) -> tuple[int, int]:
    """A size for each axis of an image: 1 for the axis that a row of pixels lacks."""
    rows, columns = (1, *per_axis(sizes, w.shape))[-2:]
    return rows, columns


def image_border(padding: Any, w: Writer) -> tuple[int, int]:
    """The padding of each axis of an image: none for the axis that a row of pixels lacks."""
    rows, columns = (0, *per_axis(padding, w.shape))[-2:]
    return rows, columns


def as_image(w: Writer, x: Any) -> Value:
    """(N, C, L) as (N, C, 1, L); what has four axes as it is."""
    shape = w.shape_of(x)
    return w.reshape(x, (*shape[:2], 1, *shape[2:])) if len(shape) == 3 else w.value(x)


# -- transposed convolutions ----------------------------------------------------------------------


@emits("conv_transpose1d.default", "conv_transpose2d.input")
def transposed_conv(
    w: Writer,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
    dilation: Sequence[int],
) -> Value:
    """A convolution of x with zeros between its pixels, by the weights turned around; or, where
    windows do not overlap, a product for each pixel, which becomes a block of pixels."""
    if len(w.shape) not in (3, 4):
        w.refuse(f"it is a transposed convolution over {len(w.shape) - 2} axes")
    step, spread = image(stride, w), image(dilation, w)
    border, more = image_border(padding, w), image_border(output_padding, w)
    x, weight = as_image(w, x), as_image(w, weight)
    taps = [w.size(d) for d in weight.type.shape[2:]]
    weight = _by_output(w, weight, groups)
    if step == tuple(taps) and (border, more, spread) == ((0, 0), (0, 0), (1, 1)):
        return _blocks(w, x, weight, bias, step, groups)
    reach = [d * (k - 1) for d, k in zip(spread, taps, strict=True)]
    before = [r - p for r, p in zip(reach, border, strict=True)]
    after = [b + m - (s - 1) for b, m, s in zip(before, more, step, strict=True)]
    cut = [min(0, side) for pair in zip(before[::-1], after[::-1], strict=True) for side in pair]
    x = pad(w, _with_gaps(w, x, step), cut, "constant", None)
    for axis, count in enumerate(taps):
        weight = gathered(w, weight, 2 + axis, np.arange(count)[::-1])
    sides = (*(max(0, b) for b in before), *(max(0, a) for a in after))
    op = ops.Conv2d((1, 1), (sides[0], sides[1], sides[2], sides[3]), spread, groups)
    return w.reshape(w.emit(op, x, weight, *([] if bias is None else [bias])), w.shape)


def _by_output(w: Writer, weight: Value, groups: int) -> Value:
    """(C, O/groups, KH, KW) as (O, C/groups, KH, KW)."""
    inner, outer, *taps = weight.type.shape
    inside = w.size(inner) // groups
    apart = w.reshape(weight, (groups, inside, outer, *taps))
    return w.reshape(w.permute(apart, (0, 2, 1, 3, 4)), (w.size(outer) * groups, inside, *taps))


def _blocks(
    w: Writer, x: Value, weight: Value, bias: Any, step: tuple[int, int], groups: int
) -> Value:
    out, inside, rows, columns = (w.size(d) for d in weight.type.shape)
    products = (out * rows * columns, inside, 1, 1)
    operands = [x, w.reshape(w.permute(weight, (0, 2, 3, 1)), products)]
    if bias is not None:
        each = w.expand(w.reshape(bias, (out, 1)), (out, rows * columns))
        operands.append(w.reshape(each, products[:1]))
    y = w.emit(ops.Conv2d(groups=groups), *operands)
    batch, _, *size = y.type.shape
    blocks = w.permute(w.reshape(y, (batch, out, *step, *size)), (0, 1, 4, 2, 5, 3))
    return w.reshape(blocks, w.shape)


def _with_gaps(w: Writer, x: Value, step: tuple[int, int]) -> Value:
    """x with step - 1 zeros after each of its pixels."""
    if step == (1, 1):
        return x
    batch, channels, height, width = x.type.shape
    rows, columns = w.size(height), w.size(width)
    apart = w.reshape(x, (batch, channels, rows, 1, columns, 1))
    after = (0, 0, 0, step[0] - 1, 0, step[1] - 1)
    padded = w.emit(ops.Pad((0,) * 6, after), apart)
    return w.reshape(padded, (batch, channels, rows * step[0], columns * step[1]))


# -- windows --------------------------------------------------------------------------------------


@emits("unfold.default", "unfold_copy.default")
def windows(w: Writer, x: Any, dim: int, size: int, step: int) -> Value:
    """The windows along an axis, each as a last axis of its own."""
    rank = len(w.shape_of(x))
    axis = w.axis(dim, rank)
    count = w.size(w.shape[axis])
    table = np.arange(count)[:, None] * step + np.arange(size)
    y = gathered(w, x, axis, table)
    return w.permute(y, (*range(axis + 1), *range(axis + 2, rank + 1), axis + 1))


@emits("im2col.default")
def columns_of(
    w: Writer,
    x: Any,
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Value:
    """The windows over an image, (N, C KH KW, windows)."""
    rows, columns = padding
    y = pad(w, x, (columns, columns, rows, rows), "constant", None)
    for axis in (3, 2):
        size, i = w.size(y.type.shape[axis]), axis - 2
        count = (size - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        table = np.arange(kernel[i])[:, None] * dilation[i] + np.arange(count) * stride[i]
        y = gathered(w, y, axis, table)
    return w.reshape(w.permute(y, (0, 1, 2, 4, 3, 5)), w.shape)
