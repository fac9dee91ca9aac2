"""Pools over windows, over whole images, and to a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import UnsupportedError
from lucid.ir.ops import (
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    Concat,
    Max,
    MaxPool2d,
    MaxPool2dIndices,
    MaxUnpool2d,
    Mean,
    Pad,
    Slice,
)
from lucid.ir.ops.windows import Padding, adaptive_bounds
from lucid.ir.types import TensorType
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import like_operand, two_dimensional, windows

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


@writes(MaxPool2d)
def write_max_pool(w: Writer, op: MaxPool2d, operands: Sequence[Edge], kind: TensorType) -> str:
    """Runtimes differ about windows that lie in the padding alone: these see it explicitly."""
    (x,) = operands
    pads = _borders(op, op.dilation, x.type, kind)
    shape: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride}
    if op.dilation != (1, 1):
        shape["dilations"] = op.dilation
    if any(pads) and (op.dilation != (1, 1) or not _within(pads, op.kernel)):
        return w.emit("MaxPool", _padded(w, x, pads, -math.inf), **shape)
    return w.emit("MaxPool", x, pads=pads, **shape)


@reads("MaxPool")
def read_max_pool(call: Call) -> list[Operand]:
    """And the indices of the maxima, where they are asked for."""
    x = two_dimensional(call, call.operand(0))
    w = windows(call, x, call.integer_list("kernel_shape") or ())
    ceil_mode = bool(call.integer("ceil_mode", 0))
    op = MaxPool2d(w.kernel, w.stride, w.padding, w.dilation, ceil_mode)
    by_column = bool(call.integer("storage_order", 0))
    found = [like_operand(call, call.apply(op, x))]
    if call.results > 1:
        places = MaxPool2dIndices(**vars(op), whole=True, by_column=by_column)
        found.append(like_operand(call, call.apply(places, x)))
    return found


@writes(MaxPool2dIndices)
def write_max_pool_indices(
    w: Writer, op: MaxPool2dIndices, operands: Sequence[Edge], kind: TensorType
) -> str:
    """ONNX counts through all images and channels: without, it is the remainder by the image."""
    fields = {f: v for f, v in vars(op).items() if f not in ("whole", "by_column")}
    attributes = {"storage_order": 1} if op.by_column else {}
    top, left, bottom, right = _borders(MaxPool2d(**fields), op.dilation, operands[0].type, kind)
    indices = w.emit(
        "MaxPool",
        operands[0],
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=(top, left, bottom, right),
        dilations=op.dilation,
        result_index=1,
        **attributes,
    )
    if op.whole:
        return indices
    height, width = op.integers(*operands[0].type.shape[2:])
    return w.emit("Mod", indices, w.integers(height * width))


@writes(MaxUnpool2d)
def write_max_unpool(w: Writer, op: MaxUnpool2d, operands: Sequence[Edge], kind: TensorType) -> str:
    """As numbers scattered over zeros where indices count within an image: MaxUnpool's count
    through the whole batch."""
    x, indices = operands
    n, channels, *_ = kind.shape
    pairs = zip(op.size, op.integers(*x.type.shape[2:]), strict=True)
    kernel = tuple(size - own + 1 for size, own in pairs)
    if op.whole and min(kernel) > 0:
        return w.emit("MaxUnpool", x, indices, kernel_shape=kernel, strides=(1, 1))
    pixels = op.size[0] * op.size[1]
    axis, front = (0, w.integers(-1)) if op.whole else (2, w.integers(0, 0, -1))
    zeros = w.emit("Expand", w.constant(0.0), w.shape((n, channels, pixels)))
    if op.whole:
        zeros = w.emit("Reshape", zeros, front)
    at, values = (w.emit("Reshape", v, front) for v in (indices, x))
    y = w.emit("ScatterElements", zeros, at, values, axis=axis)
    return w.emit("Reshape", y, w.shape(kind.shape))


@reads("MaxUnpool")
def read_max_unpool(call: Call) -> Operand:
    x, indices = (two_dimensional(call, call.operand(i)) for i in (0, 1))
    w = windows(call, x, call.integer_list("kernel_shape") or ())
    height, width = call.integer_dims(*x.type.shape[2:])
    top, left, bottom, right = w.padding
    size = (
        (height - 1) * w.stride[0] - top - bottom + w.kernel[0],
        (width - 1) * w.stride[1] - left - right + w.kernel[1],
    )
    y = call.apply(MaxUnpool2d(size, whole=True), x, indices)
    if not call.has(2):
        return like_operand(call, y)
    wanted = call.integer_dims(*call.sizes(2)[2:])
    after = [b - a for a, b in zip(size[-len(wanted) :], wanted, strict=True)]
    if min(after) < 0:
        raise UnsupportedError(f"to {wanted}, which is less than {size}")
    y = like_operand(call, y)
    pads = (0, 0, *after)
    return call.apply(Pad((0,) * len(pads), pads), y) if any(after) else y


@writes(AvgPool2d)
def write_avg_pool(w: Writer, op: AvgPool2d, operands: Sequence[Edge], kind: TensorType) -> str:
    """Without `ceil_mode`, about which runtimes differ: the pads say what the windows reach.

    Where ONNX divides by another number than the op, windows over explicit zeros, divided by their
    size, are corrected by a factor for each.
    """
    (x,) = operands
    height, width = op.integers(*x.type.shape[2:])
    pads = _borders(op, (1, 1), x.type, kind)
    divisors = op.divisors(height, width)
    area = op.kernel[0] * op.kernel[1]
    shape: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride}
    if not op.count_include_pad and op.divisor is None and _within(pads, op.kernel):
        return w.emit("AveragePool", x, pads=pads, **shape)
    if (divisors == area).all() and _within(pads, op.kernel):
        return w.emit("AveragePool", x, pads=pads, count_include_pad=1, **shape)
    y = w.emit("AveragePool", _padded(w, x, pads, 0.0), **shape)
    factors = area / divisors
    if (factors == factors[0, 0]).all():
        factors = factors[0, 0]
    return w.emit("Mul", y, w.constant(factors))


@reads("AveragePool")
def read_avg_pool(call: Call) -> Operand:
    x = two_dimensional(call, call.operand(0))
    w = windows(call, x, call.integer_list("kernel_shape") or ())
    if w.dilation != (1, 1):
        raise UnsupportedError("with dilated windows")
    ceil_mode = bool(call.integer("ceil_mode", 0))
    counts = bool(call.integer("count_include_pad", 0))
    op = AvgPool2d(w.kernel, w.stride, w.padding, ceil_mode, counts)
    return like_operand(call, call.apply(op, x))


@reads("GlobalAveragePool", "GlobalMaxPool")
def read_global_pool(call: Call) -> Operand:
    axes = tuple(range(2, call.rank()))
    op = Mean(axes, keepdims=True) if "Average" in call.kind else Max(axes, keepdims=True)
    return call.apply(op, call.operand(0))


def _borders(
    op: MaxPool2d | AvgPool2d, dilation: tuple[int, int], x: TensorType, y: TensorType
) -> Padding:
    """The padding with which as many windows fit without `ceil_mode`: more, or less, at the end."""
    if not op.ceil_mode:
        return op.padding
    top, left = op.padding[:2]
    ends = []
    for axis, before in enumerate((top, left)):
        size, count = op.integers(x.shape[2 + axis], y.shape[2 + axis])
        reach = (count - 1) * op.stride[axis] + dilation[axis] * (op.kernel[axis] - 1) + 1
        ends.append(max(0, reach - before - size))
    return (top, left, ends[0], ends[1])


def _within(pads: Padding, kernel: tuple[int, int]) -> bool:
    """Whether every window touches the input (undilated), as runtimes demand."""
    return max(pads[0], pads[2]) < kernel[0] and max(pads[1], pads[3]) < kernel[1]


def _padded(w: Writer, x: Edge, pads: Padding, fill: float) -> str:
    if not any(pads):
        return x.name
    top, left, bottom, right = pads
    ends = w.integers(0, 0, top, left, 0, 0, bottom, right)
    return w.emit("Pad", x, ends, w.constant(fill))


# -- pools to a size, for which ONNX has no operator ---------------------------------------------


@writes(AdaptiveAvgPool2d)
def write_adaptive_avg_pool(
    w: Writer, op: AdaptiveAvgPool2d, operands: Sequence[Edge], kind: TensorType
) -> str:
    """The mean over each window is linear: a matrix from the left, one from the right."""
    (x,) = operands
    height, width = op.integers(*x.type.shape[2:])
    if height % op.size[0] == 0 and width % op.size[1] == 0:
        kernel = height // op.size[0], width // op.size[1]
        return w.emit("AveragePool", x, kernel_shape=kernel, strides=kernel)
    rows = w.emit("MatMul", w.constant(_means(height, op.size[0])), x)
    return w.emit("MatMul", rows, w.constant(_means(width, op.size[1]).T))


@writes(AdaptiveMaxPool2d)
def write_adaptive_max_pool(
    w: Writer, op: AdaptiveMaxPool2d, operands: Sequence[Edge], kind: TensorType
) -> str:
    """Where windows differ in size: the maximum of each, along rows, then along columns."""
    (x,) = operands
    height, width = op.integers(*x.type.shape[2:])
    if height % op.size[0] == 0 and width % op.size[1] == 0:
        kernel = height // op.size[0], width // op.size[1]
        return w.emit("MaxPool", x, kernel_shape=kernel, strides=kernel)
    for axis, size, count in ((2, height, op.size[0]), (3, width, op.size[1])):
        parts = [
            w.apply(Max((axis,), keepdims=True), w.apply(Slice(axis, int(start), int(end)), x))
            for start, end in zip(*adaptive_bounds(size, count), strict=True)
        ]
        x = w.apply(Concat(axis), *parts)
    return x.name


def _means(size: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(count, size): row i averages over window i."""
    matrix = np.zeros((count, size))
    for row, start, end in zip(matrix, *adaptive_bounds(size, count), strict=True):
        row[start:end] = 1 / (end - start)
    return matrix
