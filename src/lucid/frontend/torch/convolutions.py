"""PyTorch's convolutions, transposed ones included, and unfold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lucid.frontend.torch.indexing import gathered
from lucid.frontend.torch.shapes import pad
from lucid.frontend.torch.writer import Writer, emits
from lucid.ir.graph import Value
from lucid.ir.transposed import CONVOLUTIONS, transposed_convolution
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


@emits("conv1d.default", "conv2d.default", "conv3d.default")
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


@emits("conv1d.padding", "conv2d.padding", "conv3d.padding")
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
    """`sides`: padding before and after, by axis."""
    axes = len(w.shape) - 2
    before, after = zip(*sides, strict=True)
    step, spread = (tuple(per_axis(each, w.shape)) for each in (stride, dilation))
    op = CONVOLUTIONS[axes](step, (*before, *after), spread, groups)
    return w.emit(op, x, weight, *([] if bias is None else [bias]))


def per_axis(sizes: Any, shape: Shape) -> list[int]:
    """One size for each spatial axis."""
    given = [sizes] if isinstance(sizes, int) else list(sizes)
    return given * (len(shape) - 2) if len(given) == 1 else given


# -- transposed convolutions ----------------------------------------------------------------------


@emits("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
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
    """The padding is cut off the result, and what `output_padding` says added at its ends."""
    step, spread, border, more = (
        per_axis(each, w.shape) for each in (stride, dilation, padding, output_padding)
    )
    cut = [(b, b - m) for b, m in zip(border, more, strict=True)]
    operands = (w.value(x), w.value(weight), None if bias is None else w.value(bias))
    return transposed_convolution(w.emit, *operands, step, cut, spread, groups)


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
