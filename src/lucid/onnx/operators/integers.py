"""Ops of integers: ONNX leaves open, or does not have, some of what Lucid says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lucid.ir.ops import (
    Add,
    ArgMax,
    ArgMin,
    BitwiseXor,
    Cast,
    Equal,
    FloorDiv,
    Less,
    LessEqual,
    Mod,
    Mul,
    Neg,
    Not,
    Op,
    Prod,
    ShiftLeft,
    ShiftRight,
    Sub,
    Where,
)
from lucid.ir.types import DTYPES, TensorType
from lucid.onnx.table import reads, writes

if TYPE_CHECKING:
    from lucid.onnx.call import Call
    from lucid.onnx.known import Operand
    from lucid.onnx.writer import Edge, Writer


# -- division -------------------------------------------------------------------------------------


def write_quotient(w: Writer, operands: Sequence[Edge], kind: TensorType) -> Edge:
    """A quotient of integers, rounded towards zero. ONNX Runtime divides by what it is given, and
    the process ends where that is 0."""
    a, b = operands
    zero, one = _number(w, 0, b), _number(w, 1, b)
    is_zero = w.apply(Equal(), b, zero)
    divisor = w.apply(Where(), is_zero, one, b)
    if not _is_signed(b):
        y = w.edge(w.emit("Div", a, divisor), kind)
    else:
        is_minus_one = w.apply(Equal(), b, _number(w, -1, b))
        divisor = w.apply(Where(), is_minus_one, one, divisor)
        y = w.edge(w.emit("Div", a, divisor), kind)
        y = w.apply(Where(), is_minus_one, w.apply(Neg(), a), y)
    return w.apply(Where(), is_zero, zero, y)


@writes(Mod)
def write_mod(w: Writer, op: Mod, operands: Sequence[Edge], kind: TensorType) -> str:
    """ONNX has the remainder of floats with the sign of the dividend only."""
    a, b = operands
    if kind.dtype == "f32":
        rest = w.edge(w.emit("Mod", a, b, fmod=1), kind)
    else:
        rest = w.apply(Sub(), a, w.apply(Mul(), write_quotient(w, operands, kind), b))
        is_zero = w.apply(Equal(), b, _number(w, 0, b))
        rest = w.apply(Where(), is_zero, _number(w, 0, b), rest)
    if op.truncated:
        return rest.name
    return w.apply(Where(), _crosses(w, rest, b), w.apply(Add(), rest, b), rest).name


@writes(FloorDiv)
def write_floor_div(w: Writer, op: FloorDiv, operands: Sequence[Edge], kind: TensorType) -> str:
    a, b = operands
    y = write_quotient(w, operands, kind)
    crosses = _crosses(w, w.apply(Mod(truncated=True), a, b), b)
    return w.apply(Where(), crosses, w.apply(Sub(), y, _number(w, 1, y)), y).name


def _crosses(w: Writer, rest: Edge, b: Edge) -> Edge:
    """Where a remainder is not 0 and has another sign than the divisor."""
    zero = _number(w, 0, b)
    same = w.apply(Equal(), w.apply(Less(), rest, zero), w.apply(Less(), b, zero))
    return w.apply(Mul(), w.apply(Not(), same), w.apply(Not(), w.apply(Equal(), rest, zero)))


# -- bits -----------------------------------------------------------------------------------------


@writes(ShiftLeft, ShiftRight)
def write_shift(
    w: Writer, op: ShiftLeft | ShiftRight, operands: Sequence[Edge], kind: TensorType
) -> str:
    """ONNX shifts unsigned integers, by fewer bits than they have. A negative number is shifted to
    the right with all of its bits turned."""
    a, b = operands
    turned = isinstance(op, ShiftRight) and _is_signed(a)
    if turned:
        negative = w.apply(Less(), a, _number(w, 0, a))
        mask = w.apply(Where(), negative, _number(w, -1, a), _number(w, 0, a))
        a = w.apply(BitwiseXor(), a, mask)
    zero = _number(w, 0, b)
    most = _number(w, 8 * DTYPES[kind.dtype].itemsize, b)
    inside = w.apply(Mul(), w.apply(LessEqual(), zero, b), w.apply(Less(), b, most))
    unsigned = Cast("u" + kind.dtype.lstrip("iu"))
    bits, count = (w.apply(unsigned, x) for x in (a, w.apply(Where(), inside, b, zero)))
    direction = "LEFT" if isinstance(op, ShiftLeft) else "RIGHT"
    shifted = w.emit("BitShift", bits, count, direction=direction)
    y = w.apply(Cast(kind.dtype), w.edge(shifted, TensorType(unsigned.dtype, kind.shape)))
    y = w.apply(Where(), inside, y, zero)
    return w.apply(BitwiseXor(), y, mask).name if turned else y.name


# -- reductions -----------------------------------------------------------------------------------


@writes(Prod)
def write_product(w: Writer, op: Prod, operands: Sequence[Edge], kind: TensorType) -> str:
    if not op.axes:  # in ONNX, no axes means all of them
        return operands[0].name
    return w.emit("ReduceProd", operands[0], w.integers(*op.axes), keepdims=int(op.keepdims))


@writes(ArgMax, ArgMin)
def write_place(w: Writer, op: ArgMax | ArgMin, operands: Sequence[Edge], kind: TensorType) -> str:
    options = {"axis": op.axis, "keepdims": int(op.keepdims), "select_last_index": int(op.last)}
    return w.emit("ArgMax" if isinstance(op, ArgMax) else "ArgMin", operands[0], **options)


@reads("ArgMax", "ArgMin")
def read_place(call: Call) -> Operand:
    options = bool(call.integer("keepdims", 1)), bool(call.integer("select_last_index", 0))
    op: Op = (ArgMax if call.kind == "ArgMax" else ArgMin)(call.axis(0), *options)
    return call.apply(op, call.operand(0))


def _number(w: Writer, value: int, like: Edge) -> Edge:
    """A number of an edge's dtype."""
    name = w.constant(np.array(value).astype(DTYPES[like.type.dtype]), like.type.dtype)
    return w.edge(name, TensorType(like.type.dtype, ()))


def _is_signed(edge: Edge) -> bool:
    return DTYPES[edge.type.dtype].kind == "i"
