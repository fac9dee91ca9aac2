"""Pools over windows, over whole images, and to a size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lucid.errors import UnsupportedError
from lucid.ir import volumes
from lucid.ir.graph import Value
from lucid.ir.ops import (
    Abs,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    Add,
    Array,
    AvgPool2d,
    Cast,
    Concat,
    Constant,
    IntegerSumPool2d,
    Max,
    MaxPool2d,
    MaxPoolIndices,
    MaxUnpool2d,
    Mean,
    Mul,
    Pad,
    Pow,
    Slice,
    Sqrt,
    Sum,
)
from lucid.ir.ops.windows import Sizes, adaptive_bounds
from lucid.ir.types import DTYPES, TensorType
from lucid.onnx.table import reads, writes
from lucid.onnx.windows import windows

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
        numbers = DTYPES[kind.dtype]
        least = -math.inf if numbers.kind == "f" else int(np.iinfo(numbers).min)
        return w.emit("MaxPool", _padded(w, x, pads, least), **shape)
    return w.emit("MaxPool", x, pads=pads, **shape)


@writes(IntegerSumPool2d)
def write_integer_sum_pool(
    w: Writer, op: IntegerSumPool2d, operands: Sequence[Edge], kind: TensorType
) -> str:
    """A convolution of each channel by ones; of bytes without a sign, as ONNX Runtime wants it."""
    (x,) = operands
    zero_point = op.zero_point
    if x.type.dtype == "i8":
        moved = w.apply(Add(), w.apply(Cast("i32"), x), w.apply(Constant(128, "i32")))
        x, zero_point = w.apply(Cast("u8"), moved), zero_point + 128
    (channels,) = op.integers(x.type.shape[1])
    ones = w.constant(np.ones((channels, 1, *op.kernel)), "u8")
    return w.emit(
        "ConvInteger",
        x,
        ones,
        w.constant(zero_point, "u8"),
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=_borders(op, op.dilation, x.type, kind),
        dilations=op.dilation,
        group=channels,
    )


@writes(MaxPoolIndices)
def write_max_pool_indices(
    w: Writer, op: MaxPoolIndices, operands: Sequence[Edge], kind: TensorType
) -> str:
    """ONNX counts over the whole tensor; what is counted over an image is the rest by its size."""
    (x,) = operands
    pads = _borders(op, op.dilation, x.type, kind)
    if any(pads) and (set(op.dilation) != {1} or not _within(pads, op.kernel)):
        raise UnsupportedError("max_pool_indices of windows that may lie in the padding alone")
    _, places = w.emit_all(
        "MaxPool",
        2,
        x,
        kernel_shape=op.kernel,
        strides=op.stride,
        pads=pads,
        dilations=op.dilation,
        storage_order=int(op.column_major),
    )
    size = prod(op.integers(*x.type.shape[2:]))
    return places if op.whole else w.emit("Mod", places, w.constant(size, "i64"))


@reads("MaxPool")
def read_max_pool(call: Call) -> Sequence[Operand]:
    """And where the maxima lie, counted over the whole tensor."""
    x, back = _floating(call)
    w = windows(call, call.integer_list("kernel_shape") or ())
    ceil_mode = bool(call.integer("ceil_mode", 0))
    column_major = bool(call.integer("storage_order", 0))
    y = back(volumes.max_pool(call.node, x, w, ceil_mode))
    if call.results < 2:
        return [y]
    indices = MaxPoolIndices(**vars(w), ceil_mode=ceil_mode, whole=True, column_major=column_major)
    return [y, call.apply(indices, x)]


def _floating(call: Call) -> tuple[Value, Callable[[Value], Operand]]:
    """The operand in f32, which holds the integers that pools take, and how to return to its
    dtype."""
    x = call.value(call.operand(0))
    dtype = x.type.dtype
    if dtype == "f32":
        return x, lambda y: y
    return call.node(Cast("f32"), x), lambda y: call.apply(Cast(dtype), y)


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
    w = windows(call, call.integer_list("kernel_shape") or ())
    images, channels, *before = call.shape()
    if len(before) > 2:
        raise UnsupportedError(f"over {len(before)} axes: Lucid has it over one and two")
    sides = zip(w.padding[: len(before)], w.padding[len(before) :], strict=True)
    size = [
        (d - 1) * step - sum(side) + kernel
        for d, step, side, kernel in zip(
            call.integer_dims(*before), w.stride, sides, w.kernel, strict=True
        )
    ]
    image = (images, channels, *(1, *before)[-2:])
    x, indices = (call.reshape(call.operand(i), image) for i in (0, 1))
    height, width = (1, *size)[-2:]
    y = call.apply(MaxUnpool2d((height, width), whole=True), x, indices)
    y = call.reshape(y, (images, channels, *size))
    if not call.has(2):
        return y
    wanted = call.integer_dims(*call.sizes(2)[2:])
    after = [b - a for a, b in zip(size, wanted, strict=True)]
    if min(after) < 0:
        raise UnsupportedError(f"to {wanted}, which is less than {size}")
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
    pads = _borders(op, op.dilation, x.type, kind)
    divisors = op.divisors(height, width)
    area = op.kernel[0] * op.kernel[1]
    shape: dict[str, Any] = {"kernel_shape": op.kernel, "strides": op.stride}
    if op.dilation != (1, 1):
        return _dilated_sums(w, op, _padded(w, x, pads, 0.0), x.type, 1 / divisors)
    if not op.count_include_pad and op.divisor is None and _within(pads, op.kernel):
        return w.emit("AveragePool", x, pads=pads, **shape)
    if (divisors == area).all() and _within(pads, op.kernel):
        return w.emit("AveragePool", x, pads=pads, count_include_pad=1, **shape)
    y = w.emit("AveragePool", _padded(w, x, pads, 0.0), **shape)
    factors = area / divisors
    if (factors == factors[0, 0]).all():
        factors = factors[0, 0]
    return w.emit("Mul", y, w.constant(factors))


def _dilated_sums(w: Writer, op: AvgPool2d, x: str, kind: TensorType, factors: Array) -> str:
    """The sums of dilated windows, which opset 18 has no pool for: a convolution by ones, channel
    by channel."""
    (channels,) = op.integers(kind.shape[1])
    ones = w.constant(np.ones((channels, 1, *op.kernel)))
    window = {"kernel_shape": op.kernel, "strides": op.stride, "dilations": op.dilation}
    return w.emit("Mul", w.emit("Conv", x, ones, group=channels, **window), w.constant(factors))


@reads("AveragePool")
def read_avg_pool(call: Call) -> Operand:
    w = windows(call, call.integer_list("kernel_shape") or ())
    ceil_mode = bool(call.integer("ceil_mode", 0))
    counts = bool(call.integer("count_include_pad", 0))
    return volumes.avg_pool(call.node, call.value(call.operand(0)), w, ceil_mode, counts)


@reads("LpPool")
def read_lp_pool(call: Call) -> Operand:
    """The p-norm of each window: the root of a sum of powers, which a mean by 1 is."""
    w = windows(call, call.integer_list("kernel_shape") or ())
    p, ceil_mode = call.integer("p", 2), bool(call.integer("ceil_mode", 0))
    powers = call.value(_power(call, p))
    return _root(call, volumes.avg_pool(call.node, powers, w, ceil_mode, divisor=1), p)


@reads("GlobalLpPool")
def read_global_lp_pool(call: Call) -> Operand:
    p, axes = call.integer("p", 2), tuple(range(2, call.rank()))
    return _root(call, call.apply(Sum(axes, keepdims=True), _power(call, p)), p)


def _power(call: Call, p: int) -> Operand:
    """abs(x) to the power of p."""
    x = call.operand(0)
    if p == 2:
        return call.apply(Mul(), x, x)
    size = call.apply(Abs(), x)
    return size if p == 1 else call.apply(Pow(), size, float(p))


def _root(call: Call, y: Operand, p: int) -> Operand:
    if p == 1:
        return y
    return call.apply(Sqrt(), y) if p == 2 else call.apply(Pow(), y, 1 / p)


@reads("GlobalAveragePool", "GlobalMaxPool")
def read_global_pool(call: Call) -> Operand:
    axes = tuple(range(2, call.rank()))
    op = Mean(axes, keepdims=True) if "Average" in call.kind else Max(axes, keepdims=True)
    return call.apply(op, call.operand(0))


def _borders(
    op: MaxPool2d | MaxPoolIndices | AvgPool2d | IntegerSumPool2d,
    dilation: Sizes,
    x: TensorType,
    y: TensorType,
) -> Sizes:
    """The padding with which as many windows fit without `ceil_mode`: more, or less, at the end."""
    if not op.ceil_mode:
        return op.padding
    axes = len(op.kernel)
    ends = []
    for axis, before in enumerate(op.padding[:axes]):
        size, count = op.integers(x.shape[2 + axis], y.shape[2 + axis])
        reach = (count - 1) * op.stride[axis] + dilation[axis] * (op.kernel[axis] - 1) + 1
        ends.append(max(0, reach - before - size))
    return (*op.padding[:axes], *ends)


def _within(pads: Sizes, kernel: Sizes) -> bool:
    """Whether every window touches the input (undilated), as runtimes demand."""
    return all(pad < kernel[i % len(kernel)] for i, pad in enumerate(pads))


def _padded(w: Writer, x: Edge, pads: Sizes, fill: float) -> str:
    if not any(pads):
        return x.name
    top, left, bottom, right = pads
    ends = w.integers(0, 0, top, left, 0, 0, bottom, right)
    return w.emit("Pad", x, ends, w.constant(fill, x.type.dtype))


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
