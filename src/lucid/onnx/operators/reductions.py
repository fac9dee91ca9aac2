"""Reductions over axes, and the softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import UnsupportedError
from lucid.ir.ops import (
    Abs,
    ArgMax,
    Array,
    Cast,
    Equal,
    Exp,
    Log,
    Max,
    Mean,
    Min,
    Mul,
    Op,
    Prod,
    Softmax,
    Sqrt,
    Sub,
    Sum,
    SumSquares,
)
from lucid.ir.types import DTYPES, Dim, TensorType
from lucid.onnx import bfloat16
from lucid.onnx.elements import BOOL
from lucid.onnx.known import Known, known
from lucid.onnx.table import reads, writes
from lucid.onnx.tensors import BFLOAT16

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer

NAMES: dict[type[Op], str] = {
    Sum: "ReduceSum",
    SumSquares: "ReduceSumSquare",
    Max: "ReduceMax",
    Min: "ReduceMin",
}


@writes(*NAMES)
def write_reduction(
    w: Writer, op: Sum | SumSquares | Max | Min, operands: Sequence[Edge], kind: TensorType
) -> str:
    if not op.axes:  # in ONNX, no axes means all of them
        (x,) = operands
        return w.emit("Mul", x, x) if isinstance(op, SumSquares) else x.name
    axes = w.integers(*op.axes)
    return w.emit(NAMES[type(op)], operands[0], axes, keepdims=int(op.keepdims))


@writes(Mean)
def write_mean(w: Writer, op: Mean, operands: Sequence[Edge], kind: TensorType) -> str:
    """The mean of whole images as the global pool that it is."""
    (x,) = operands
    if not op.axes:
        return x.name
    if x.type.rank == 4 and set(op.axes) == {2, 3}:
        y = w.emit("GlobalAveragePool", x)
        return y if op.keepdims else w.emit("Flatten", y, axis=1)
    return w.emit("ReduceMean", x, w.integers(*op.axes), keepdims=int(op.keepdims))


@reads(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
def read_reduction(call: Call) -> Operand:
    """Axes were an attribute before opset 18 (13 for ReduceSum); none of them means all."""
    x, keepdims, axes = call.operand(0), bool(call.integer("keepdims", 1)), _axes(call)
    if axes is None:
        return _unreduced(call, x)
    if isinstance(x, Known) and x.type.dtype != "f32":
        return _of_sizes(call, x, axes, keepdims)
    if call.kind in EXTREMES and any(x.type.shape[a] == 0 for a in axes):
        return _of_nothing(call, x, axes, keepdims)
    total = Sum(axes, keepdims)
    match call.kind.removeprefix("Reduce"):
        case "Mean":
            return call.apply(Mean(axes, keepdims), x)
        case "Max":
            return call.apply(Max(axes, keepdims), x)
        case "Min":
            return call.apply(Min(axes, keepdims), x)
        case "L1":
            return call.apply(total, call.apply(Abs(), x))
        case "L2":
            return call.apply(Sqrt(), call.apply(SumSquares(axes, keepdims), x))
        case "SumSquare":
            return call.apply(SumSquares(axes, keepdims), x)
        case "LogSum":
            return call.apply(Log(), call.apply(total, x))
        case "LogSumExp":
            return call.apply(Log(), call.apply(total, call.apply(Exp(), x)))
    return call.apply(total, x)


EXTREMES = {"ReduceMax": -1, "ReduceMin": 1}
"""Reductions that give an infinity, or an integer's bound, where there is nothing to reduce."""


def _of_nothing(call: Call, x: Operand, axes: tuple[int, ...], keepdims: bool) -> Operand:
    """The maximum or minimum of no elements."""
    dtype, sign = DTYPES[x.type.dtype], EXTREMES[call.kind]
    bounds = None if dtype.kind == "f" else np.iinfo(dtype)
    least, most = (-np.inf, np.inf) if bounds is None else (bounds.min, bounds.max)
    if call.element(0) == BOOL:
        least, most = 0, 1
    kept = [(a, d) for a, d in enumerate(x.type.shape) if keepdims or a not in axes]
    shape = tuple(1 if a in axes else d for a, d in kept)
    return call.expand(known(np.array(least if sign < 0 else most, dtype)), shape)


def _unreduced(call: Call, x: Operand) -> Operand:
    """What a reduction over no axes leaves: the rest of what it computes, of each element."""
    match call.kind:
        case "ReduceL1" | "ReduceL2":
            return call.apply(Abs(), x)
        case "ReduceSumSquare":
            return call.apply(Mul(), x, x)
        case "ReduceLogSum":
            return call.apply(Log(), x)
    return x


def _axes(call: Call) -> tuple[int, ...] | None:
    """The axes that a reduction is over; None where it is over none."""
    axes, nothing = call.axes(), call.integer("noop_with_empty_axes", 0)
    return axes or (None if nothing else tuple(range(call.rank())))


@reads("ReduceProd")
def read_product(call: Call) -> Operand:
    x, keepdims, axes = call.operand(0), bool(call.integer("keepdims", 1)), _axes(call)
    if axes is None:
        return x
    if isinstance(x, Known):
        return _of_sizes(call, x, axes, keepdims)
    return call.apply(Prod(axes, keepdims), x)


def _of_sizes(call: Call, x: Known, axes: tuple[int, ...], keepdims: bool) -> Operand:
    functions: dict[str, Callable[..., Array]] = {
        "Sum": np.sum,
        "Max": np.max,
        "Min": np.min,
        "Prod": np.prod,
    }
    function = functions.get(call.kind.removeprefix("Reduce"))
    if function is None or (x.has_batch and call.kind != "ReduceProd"):
        raise UnsupportedError("of sizes")
    if not x.has_batch:
        return known(function(x.array, axis=axes, keepdims=keepdims))
    if len(axes) < x.type.rank:
        raise UnsupportedError("of sizes over some axes only")
    rest = prod(d for d in x.array.flat if not isinstance(d, Dim))
    dims = [d for d in x.array.flat if isinstance(d, Dim)]
    if len(dims) > 1 and rest:
        raise UnsupportedError("of sizes, several of which depend on the batch")
    array = np.empty((1,) * x.type.rank if keepdims else (), object)
    array[...] = dims[0] * rest if rest else 0
    return known(array)


@reads("Hardmax")
def read_hardmax(call: Call) -> Operand:
    """1 where the first maximum lies, 0 elsewhere; axes as for Softmax."""
    x = call.operand(0)
    shape, axis = x.type.shape, call.axis(1 if call.opset < 13 else -1)
    x = _joined(call, x, axis)
    place = call.apply(Cast("f32"), call.apply(ArgMax(axis, True), x))
    (size,) = call.integer_dims(x.type.shape[axis])
    places = np.arange(size, dtype=np.float32)
    places = places.reshape([-1 if i == axis else 1 for i in range(x.type.rank)])
    return call.reshape(call.apply(Equal(), known(places), place), shape)


@writes(Softmax)
def write_softmax(w: Writer, op: Softmax, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("Softmax", operands[0], axis=op.axis)


@reads("Softmax", "LogSoftmax")
def read_softmax(call: Call) -> Operand:
    """Over one axis; before opset 13 over all axes from that one on, as if they were one."""
    x = call.operand(0)
    axis = call.axis(1 if call.opset < 13 else -1)
    shape = x.type.shape
    x = _joined(call, x, axis)
    if call.kind == "Softmax" and call.element(0) == BFLOAT16 and bfloat16.is_short(x, axis):
        return call.reshape(bfloat16.softmax(call, x, axis), shape)
    if call.kind == "Softmax":
        return call.reshape(call.apply(Softmax(axis), x), shape)
    shifted = call.apply(Sub(), x, call.apply(Max((axis,), keepdims=True), x))
    total = call.apply(Sum((axis,), keepdims=True), call.apply(Exp(), shifted))
    return call.reshape(call.apply(Sub(), shifted, call.apply(Log(), total)), shape)


def _joined(call: Call, x: Operand, axis: int) -> Operand:
    """Before opset 13, all axes from that one on as one."""
    shape = x.type.shape
    if call.opset < 13 and any(d != 1 for d in shape[axis + 1 :]):
        return call.reshape(x, (*shape[:axis], prod(call.integer_dims(*shape[axis:]))))
    return x
