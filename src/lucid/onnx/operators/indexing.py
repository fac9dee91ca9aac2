"""Operators that take elements from places, or put them to places, that tensors tell."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from lucid.errors import ModelFileError, ShapeError
from lucid.ir.ops import (
    Add,
    Cast,
    Equal,
    Gather,
    GatherElements,
    GatherND,
    Less,
    LessEqual,
    Scatter,
    ScatterElements,
    ScatterND,
    Slice,
    Sub,
    Where,
)
from lucid.ir.types import TensorType
from lucid.onnx.known import Known, known
from lucid.onnx.operators.sizes import known_elements
from lucid.onnx.table import reads, writes
from lucid.onnx.tensors import graph_dtype

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


def indices(call: Call, index: int) -> Operand:
    """Operand `index`, integers of any dtype, as i64."""
    operand = call.operand(index)
    return operand if operand.type.dtype == "i64" else call.apply(Cast("i64"), operand)


def floats(call: Call, operand: Operand) -> Operand:
    """An operand as f32."""
    return operand if operand.type.dtype == "f32" else call.apply(Cast("f32"), operand)


# -- taking ---------------------------------------------------------------------------------------


@writes(GatherElements)
def write_gather_elements(
    w: Writer, op: GatherElements, operands: Sequence[Edge], kind: TensorType
) -> str:
    return w.emit("GatherElements", *operands, axis=op.axis)


@reads("GatherElements")
def read_gather_elements(call: Call) -> Operand:
    return call.apply(GatherElements(call.axis(0)), call.operand(0), indices(call, 1))


@writes(GatherND)
def write_gather_nd(w: Writer, op: GatherND, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("GatherND", *operands, batch_dims=op.batch_dims)


@reads("GatherND")
def read_gather_nd(call: Call) -> Operand:
    """By known indices along the first axes: these become one, a number for each place."""
    x, where = call.operand(0), indices(call, 1)
    own = call.integer("batch_dims", 0)
    if own or not isinstance(where, Known) or where.has_batch or where.array.ndim == 0:
        return call.apply(GatherND(own), x, where)
    places, depth = where.array, where.array.shape[-1]
    if not 0 < depth <= x.type.rank:
        raise ModelFileError(f"takes {depth} indices for each place of {x.type}")
    sizes, rest = call.integer_dims(*x.type.shape[:depth]), x.type.shape[depth:]
    if ((places < -np.array(sizes)) | (places >= sizes)).any():
        raise ShapeError(f"takes places outside {x.type}")
    flat = np.ravel_multi_index(tuple(np.moveaxis(places % sizes, -1, 0)), tuple(sizes))
    return call.apply(Gather(0), call.reshape(x, (prod(sizes), *rest)), known(flat))


@reads("Compress")
def read_compress(call: Call) -> Operand:
    """By a known condition: the places where it is true."""
    x, condition = call.operand(0), known_elements(call, 1).reshape(-1)
    if not call.states("axis"):
        x, axis = call.reshape(x, (prod(call.integer_dims(*x.type.shape)),)), 0
    else:
        axis = call.axis()
    return call.apply(Gather(axis), x, known(np.flatnonzero(condition)))


@reads("ReverseSequence")
def read_reverse_sequence(call: Call) -> Operand:
    """The first elements along the axis of time turned around, for each one of the batch axis as
    many as its length says: gathered from computed places."""
    x, lengths = call.operand(0), floats(call, call.operand(1))
    time, batch = call.integer("time_axis", 0), call.integer("batch_axis", 1)
    if {time, batch} != {0, 1} or x.type.rank < 2:
        raise ModelFileError(f"has the axes {time} and {batch} of {x.type}")
    (steps,) = call.integer_dims(x.type.shape[time])
    step = known(np.arange(steps, dtype=np.float32).reshape((-1, 1) if time == 0 else (1, -1)))
    size = x.type.shape[batch]
    lengths = call.reshape(lengths, (1, size) if time == 0 else (size, 1))
    turned = call.apply(Sub(), call.apply(Sub(), lengths, 1.0), step)
    place = call.apply(Where(), call.apply(Less(), step, lengths), turned, step)
    place = call.apply(Cast("i64"), place)
    place = call.reshape(place, (*x.type.shape[:2], *[1] * (x.type.rank - 2)))
    return call.apply(GatherElements(time), x, call.expand(place, x.type.shape))


# -- putting --------------------------------------------------------------------------------------


@writes(ScatterElements)
def write_scatter_elements(
    w: Writer, op: ScatterElements, operands: Sequence[Edge], kind: TensorType
) -> str:
    return w.emit("ScatterElements", *operands, axis=op.axis, reduction=op.reduction)


@writes(ScatterND)
def write_scatter_nd(w: Writer, op: ScatterND, operands: Sequence[Edge], kind: TensorType) -> str:
    return w.emit("ScatterND", *operands, reduction=op.reduction)


@reads("ScatterElements", "Scatter")
def read_scatter_elements(call: Call) -> Operand:
    op = ScatterElements(call.axis(0), call.text("reduction", "none"))
    return _scattered(call, op)


@reads("ScatterND")
def read_scatter_nd(call: Call) -> Operand:
    return _scattered(call, ScatterND(call.text("reduction", "none")))


def _scattered(call: Call, op: Scatter) -> Operand:
    return call.apply(op, call.operand(0), indices(call, 1), call.operand(2))


@reads("TensorScatter")
def read_tensor_scatter(call: Call) -> Operand:
    """An update in one piece along an axis, for each image from a place of its own on."""
    past, update = call.operand(0), call.operand(1)
    axis = call.counted(call.integer("axis", -2), past.type.rank)
    circular = call.choice("mode", ("linear", "circular")) == "circular"
    shape = update.type.shape
    (count,) = call.integer_dims(shape[axis])
    (size,) = call.integer_dims(past.type.shape[axis])
    steps = np.arange(count).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    place: Operand = known(steps.astype(np.float32))
    if call.has(2):
        first = floats(call, call.operand(2))
        first = call.reshape(first, (shape[0], *[1] * (len(shape) - 1)))
        place = call.apply(Add(), first, place)
    if circular:
        over = call.apply(LessEqual(), float(size), place)
        place = call.apply(Where(), over, call.apply(Sub(), place, float(size)), place)
    place = call.expand(call.apply(Cast("i64"), place), shape)
    return call.apply(ScatterElements(axis), past, place, update)


# -- tables ---------------------------------------------------------------------------------------


@reads("OneHot")
def read_one_hot(call: Call) -> Operand:
    """On where the index is the place along a new axis, off elsewhere and where it is outside."""
    where, depth = floats(call, indices(call, 0)), int(call.scalar(1))
    values = call.operand(2)
    rank = where.type.rank + 1
    axis = call.counted(call.integer("axis", -1), rank)
    shape = where.type.shape
    below = call.apply(Less(), where, 0.0)
    where = call.apply(Where(), below, call.apply(Add(), where, float(depth)), where)
    where = call.reshape(where, (*shape[:axis], 1, *shape[axis:]))
    places = np.arange(depth, dtype=np.float32)
    places = places.reshape([-1 if i == axis else 1 for i in range(rank)])
    hit = call.apply(Equal(), where, known(places))
    off, on = (call.reshape(call.apply(Slice(0, i, i + 1), values), ()) for i in (0, 1))
    return call.apply(Where(), hit, on, off)


@reads("Trilu")
def read_trilu(call: Call) -> Operand:
    """0 on one side of a diagonal, which may be told when the model runs."""
    x, upper = call.operand(0), call.integer("upper", 1)
    rows, columns = call.integer_dims(*x.type.shape[-2:])
    diagonal: Operand = known(0.0)
    if call.has(1):
        diagonal = call.reshape(floats(call, call.operand(1)), ())
    lies = known(np.subtract.outer(-np.arange(rows), -np.arange(columns)).astype(np.float32))
    pair = (diagonal, lies) if upper else (lies, diagonal)
    zero = call.apply(Cast(x.type.dtype), known(0.0))
    return call.apply(Where(), call.apply(LessEqual(), *pair), x, zero)


@reads("EyeLike")
def read_eye_like(call: Call) -> Operand:
    if call.rank() != 2:
        raise ModelFileError(f"takes a matrix, got {call.operand(0).type}")
    rows, columns = call.integer_dims(*call.shape())
    eye = known(np.eye(rows, columns, k=call.integer("k", 0), dtype=np.float32))
    dtype = call.operand(0).type.dtype
    if call.states("dtype"):
        dtype = graph_dtype(call.integer("dtype", 1))
    return call.apply(Cast(dtype), eye)
